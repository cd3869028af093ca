// SPDX-License-Identifier: Apache-2.0
// linear, gate_up_swiglu: checks, then the threaded product.
#include "check.h"
#include "linear_run.h"
#include "vmo/core.h"

namespace vmo {

Status linear(const char* op, const TensorView& x, int weights, const TensorView* w, const TensorView* bias,
              const TensorView& y) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  if (weights < 1 || weights > kMaxWeights) return fail(op, "got %d weights; expected 1 to %d", weights, kMaxWeights);
  LinearArgs args{};
  VMO_TRY(row_extents(op, "x", x, &args.rows, &args.inner));
  int64_t total = 0;
  for (int i = 0; i < weights; ++i) {
    Rows rows;
    VMO_TRY(weight_rows(op, "w", w[i], x.dtype, args.inner, &rows));
    args.w[i] = rows.data;
    args.ldw[i] = rows.stride;
    args.cols[i] = w[i].shape[0];
    if (bias != nullptr) {
      VMO_TRY(require_vector(op, "bias", bias[i], x.dtype, args.cols[i]));
      args.bias[i] = static_cast<const char*>(bias[i].data);
    }
    total += args.cols[i];
  }
  Rows rows;
  VMO_TRY(input_rows(op, "x", x, args.inner, ScratchSlot::kMaterialise0, &rows));
  args.float_output = y.dtype == DType::kFloat32;
  if (!args.float_output) VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, args.rows * total));
  args.x = rows.data;
  args.ldx = rows.stride;
  args.weights = weights;
  args.y = static_cast<char*>(y.data);
  args.ldy = total;
  run_linear(*kernels, size_of(x.dtype), args);
  return kOk;
}

Status gate_up_swiglu(const char* op, const TensorView& x, const TensorView& gate, const TensorView& up,
                      const TensorView& y) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  GateUpArgs args{};
  VMO_TRY(row_extents(op, "x", x, &args.rows, &args.inner));
  Rows gate_rows, up_rows, rows;
  VMO_TRY(weight_rows(op, "gate", gate, x.dtype, args.inner, &gate_rows));
  VMO_TRY(weight_rows(op, "up", up, x.dtype, args.inner, &up_rows));
  VMO_TRY(require_shape(op, "up", up, {gate.shape[0], args.inner}));
  VMO_TRY(input_rows(op, "x", x, args.inner, ScratchSlot::kMaterialise0, &rows));
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, args.rows * gate.shape[0]));
  args.x = rows.data;
  args.ldx = rows.stride;
  args.gate = gate_rows.data;
  args.ldgate = gate_rows.stride;
  args.up = up_rows.data;
  args.ldup = up_rows.stride;
  args.cols = args.ldy = gate.shape[0];
  args.y = static_cast<char*>(y.data);
  run_gate_up(*kernels, size_of(x.dtype), args);
  return kOk;
}

}  // namespace vmo
