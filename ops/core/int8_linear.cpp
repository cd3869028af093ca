// SPDX-License-Identifier: Apache-2.0
// int8_linear: checks, then the threaded product.
#include "check.h"
#include "linear_run.h"
#include "sparse_tiles.h"
#include "vmo/core.h"

namespace vmo {
namespace {

Status read_compressed(const char* op, const Int8Weight& w, int index, Int8LinearArgs* args) {
  VMO_TRY(require_rank(op, "scale", w.scale, 1));
  SparseTiles tiles;
  VMO_TRY(open_tiles(op, w.weight, w.index, w.scale.shape[0], args->inner, &tiles));
  args->cols[index] = tiles.outputs;
  args->w[index] = tiles.stream;
  args->stream_bytes[index] = tiles.bytes;
  args->index[index] = tiles.index;
  return kOk;
}

Status read_plain(const char* op, const Int8Weight& w, int index, Int8LinearArgs* args) {
  Rows rows;
  VMO_TRY(weight_rows(op, "weight", w.weight, DType::kInt8, args->inner, &rows));
  args->cols[index] = w.weight.shape[0];
  args->w[index] = rows.data;
  args->ldw[index] = rows.stride;
  return kOk;
}

Status read_weight(const char* op, const Int8Weight& w, DType dtype, int index, Int8LinearArgs* args) {
  VMO_TRY((w.index.data != nullptr ? read_compressed : read_plain)(op, w, index, args));
  const int64_t cols = args->cols[index];
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
    if ((args.index[i] != nullptr) != (args.index[0] != nullptr)) {
      return fail(op, "some of the weights are compressed and some are not");
    }
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
  if (args.index[0] != nullptr) {
    run_sparse_linear(*kernels, *table, size_of(y.dtype), args);
  } else {
    run_int8_linear(*kernels, table->int8_packing, size_of(y.dtype), args);
  }
  return kOk;
}

}  // namespace vmo
