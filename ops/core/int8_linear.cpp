// SPDX-License-Identifier: Apache-2.0
// int8_linear: checks, then the threaded product.
#include "check.h"
#include "linear_run.h"
#include "vmo/core.h"

namespace vmo {
namespace {

Status read_weight(const char* op, const Int8Weight& w, DType dtype, int index, Int8LinearArgs* args) {
  Rows rows;
  VMO_TRY(weight_rows(op, "weight", w.weight, DType::kInt8, args->inner, &rows));
  const int64_t cols = args->cols[index] = w.weight.shape[0];
  args->w[index] = rows.data;
  args->ldw[index] = rows.stride;
  VMO_TRY(optional_vector(op, "scale", w.scale, DType::kFloat32, cols, &args->scale[index]));
  if (args->scale[index] == nullptr && cols > 0) return fail(op, "argument scale is missing");
  VMO_TRY(optional_vector(op, "quant_bias", w.quant_bias, DType::kInt32, cols, &args->quant_bias[index]));
  return optional_vector(op, "bias", w.bias, dtype, cols, &args->bias[index]);
}

}  // namespace

Status int8_linear(const char* op, const TensorView& codes, const TensorView& token_scale, int weights,
                   const Int8Weight* w, const TensorView& y) {
  const KernelTable* table = active_kernels(op);
  if (table == nullptr) return kError;
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "y", y.dtype, &kernels));
  VMO_TRY(require_dtype(op, "codes", codes, DType::kInt8));
  if (weights < 1 || weights > kMaxWeights) return fail(op, "got %d weights; expected 1 to %d", weights, kMaxWeights);
  Int8LinearArgs args{};
  VMO_TRY(row_extents(op, "codes", codes, &args.rows, &args.inner));
  for (int i = 0; i < weights; ++i) {
    VMO_TRY(read_weight(op, w[i], y.dtype, i, &args));
    args.ldy += args.cols[i];
  }
  if (token_scale.data != nullptr) {
    VMO_TRY(require_dtype(op, "token_scale", token_scale, DType::kFloat32));
    VMO_TRY(require_output(op, "token_scale", token_scale, args.rows));
    args.token_scale = static_cast<const float*>(token_scale.data);
  }
  Rows rows;
  VMO_TRY(input_rows(op, "codes", codes, args.inner, ScratchSlot::kMaterialise0, &rows));
  VMO_TRY(require_output(op, "y", y, args.rows * args.ldy));
  args.x = rows.data;
  args.ldx = rows.stride;
  args.weights = weights;
  args.y = static_cast<char*>(y.data);
  run_int8_linear(*kernels, table->int8_packing, size_of(y.dtype), args);
  return kOk;
}

}  // namespace vmo
