// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding of the heads in each row.
#include "check.h"
#include "row_tasks.h"
#include "vmo/core.h"

namespace vmo {
namespace {

Status angle_rows(const char* op, const char* name, const TensorView& angles, const TensorView& x, int64_t tokens,
                  int64_t width, ScratchSlot slot, Rows* out) {
  if (angles.dtype != DType::kFloat32) VMO_TRY(require_dtype(op, name, angles, x.dtype));
  VMO_TRY(require_shape(op, name, angles, {tokens, width}));
  return input_rows(op, name, angles, width, slot, out);
}

}  // namespace

Status rotary(const char* op, const TensorView& x, const TensorView& cos, const TensorView& sin, int64_t head_dim,
              bool interleaved, const TensorView& y) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  VMO_TRY(require_rank(op, "x", x, 2));
  VMO_TRY(require_rank(op, "cos", cos, 2));
  const int64_t rotary_dim = cos.shape[1];
  if (head_dim < 1 || x.shape[1] % head_dim != 0) {
    return fail(op, "rows of x %s do not divide into heads of %lld elements", shape_text(x),
                static_cast<long long>(head_dim));
  }
  if (rotary_dim > head_dim || rotary_dim % 2 != 0) {
    return fail(op, "cos has %lld columns; expected an even number of at most head_dim %lld",
                static_cast<long long>(rotary_dim), static_cast<long long>(head_dim));
  }
  Rows x_rows, cos_rows, sin_rows;
  VMO_TRY(input_rows(op, "x", x, x.shape[1], ScratchSlot::kMaterialise0, &x_rows));
  VMO_TRY(angle_rows(op, "cos", cos, x, x.shape[0], rotary_dim, ScratchSlot::kMaterialise1, &cos_rows));
  VMO_TRY(require_dtype(op, "sin", sin, cos.dtype));
  VMO_TRY(angle_rows(op, "sin", sin, x, x.shape[0], rotary_dim, ScratchSlot::kMaterialise2, &sin_rows));
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, x.numel()));
  RotaryArgs args{};
  args.x = x_rows.data;
  args.ldx = x_rows.stride;
  args.heads = x.shape[1] / head_dim;
  args.head_dim = head_dim;
  args.rotary_dim = rotary_dim;
  args.interleaved = interleaved;
  args.cos = cos_rows.data;
  args.sin = sin_rows.data;
  args.ldcos = cos_rows.stride;
  args.ldsin = sin_rows.stride;
  args.cos_is_float = cos.dtype == DType::kFloat32;
  args.y = static_cast<char*>(y.data);
  args.ldy = x.shape[1];
  for_row_ranges(x.shape[0], x.shape[1], [&](int64_t row0, int64_t row1) { kernels->rotary(args, row0, row1); });
  return kOk;
}

}  // namespace vmo
