// SPDX-License-Identifier: Apache-2.0
// swiglu and silu.
#include "check.h"
#include "row_tasks.h"
#include "vmo/core.h"

namespace vmo {

Status swiglu(const char* op, const TensorView& x, int64_t axis, const TensorView& y) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  int split = 0;
  VMO_TRY(require_axis(op, x, axis, &split));
  if (x.shape[split] % 2 != 0) {
    return fail(op, "axis %d of x %s is odd; expected gate and up halves", split, shape_text(x));
  }
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, x.numel() / 2));
  // The axes behind `split` belong to the halves: one row holds the gate half, then the up half.
  int64_t width = 1;
  for (int i = split; i < x.ndim; ++i) width *= x.shape[i];
  Rows rows;
  VMO_TRY(input_rows(op, "x", x, width, ScratchSlot::kMaterialise0, &rows));
  const int64_t half = width / 2;
  const char* up = rows.data + half * static_cast<int64_t>(size_of(x.dtype));
  const ActivationArgs args{rows.data, up, rows.stride, half, static_cast<char*>(y.data), half};
  for_row_ranges(rows.rows, width, [&](int64_t row0, int64_t row1) { kernels->activation(args, row0, row1); });
  return kOk;
}

Status silu(const char* op, const TensorView& x, const TensorView& y) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, x.numel()));
  const int64_t width = x.ndim == 0 ? 1 : x.dim(-1);
  Rows rows;
  VMO_TRY(input_rows(op, "x", x, width, ScratchSlot::kMaterialise0, &rows));
  const ActivationArgs args{rows.data, nullptr, rows.stride, width, static_cast<char*>(y.data), width};
  for_row_ranges(rows.rows, width, [&](int64_t row0, int64_t row1) { kernels->activation(args, row0, row1); });
  return kOk;
}

}  // namespace vmo
