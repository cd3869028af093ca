// SPDX-License-Identifier: Apache-2.0
// Builtin primitives of int8 layers. The comment of each gives its arguments in call order.
#include <utility>

#include "arguments.h"
#include "core/check.h"
#include "float_parameters.h"
#include "vmo/core.h"

namespace vmo::plugin {
namespace {

TensorView turned(const TensorView& matrix) {
  TensorView result = matrix;
  std::swap(result.shape[0], result.shape[1]);
  std::swap(result.strides[0], result.strides[1]);
  return result;
}

// A matrix turned in work memory.
TensorView turned_copy(const TensorView& matrix) {
  const TensorView view = turned(matrix);
  const TensorView copy =
      contiguous_view(scratch(ScratchSlot::kMaterialise2, view.bytes()), view.dtype, 2, view.shape);
  copy_contiguous(view, copy.data);
  return copy;
}

// x, scale, offset, sqrt_mode, rounding_mode, dst_type -> y int8. With an int8 offset scale is what x is divided by, with
// a float offset what it is multiplied with: so do the kernels of the NPU.
Status run_quant(const Arguments& args) {
  TensorView x, scale, offset, y;
  bool sqrt_mode = false;
  int64_t rows = 0, inner = 0;
  VMO_TRY(args.require_count(7));
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.input(1, &scale));
  VMO_TRY(args.input(2, &offset));
  VMO_TRY(args.boolean(3, "sqrt_mode", &sqrt_mode));
  if (sqrt_mode) return fail(args.op(), "sqrt_mode is not supported");
  VMO_TRY(args.output(1, &y));
  VMO_TRY(row_extents(args.op(), "x", x, &rows, &inner));
  ActivationCodes how{};
  how.kind = offset.dtype == DType::kInt8 ? CodeKind::kDivide : CodeKind::kMultiply;
  VMO_TRY(float_parameters(args.op(), "scale", scale, inner, ScratchSlot::kMaterialise1, &how.scale));
  VMO_TRY(float_parameters(args.op(), "offset", offset, inner, ScratchSlot::kMaterialise2, &how.offset));
  return quantize(args.op(), x, how, y, TensorView{});
}

// x, smooth_scales or None -> y int8, scale float32 with one value per row
Status run_dynamic_quant(const Arguments& args) {
  TensorView x, smooth, y, scale;
  int64_t rows = 0, inner = 0;
  VMO_TRY(args.require_count(4));
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.input(1, &smooth));
  VMO_TRY(args.output(2, &y));
  VMO_TRY(args.output(1, &scale));
  VMO_TRY(row_extents(args.op(), "x", x, &rows, &inner));
  ActivationCodes how{};
  how.kind = CodeKind::kPerToken;
  VMO_TRY(float_parameters(args.op(), "smooth_scales", smooth, inner, ScratchSlot::kMaterialise1, &how.scale));
  return quantize(args.op(), x, how, y, scale);
}

// x1 int8 [..., K], x2 int8 [N, K] (transpose_x2) or [K, N], scale, offset None, bias int32 or None,
// pertoken_scale or None, transpose_x1, transpose_x2, dtype -> y
Status run_quant_matmul(const Arguments& args) {
  TensorView x, scale, y, token_scale;
  Int8Weight weight;
  bool transpose_x1 = false, transpose_x2 = false;
  VMO_TRY(args.require_count(10));
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.input(1, &weight.weight));
  VMO_TRY(args.input(2, &scale));
  VMO_TRY(args.require_none(3, "offset"));
  VMO_TRY(args.input(4, &weight.quant_bias));
  VMO_TRY(args.input(5, &token_scale));
  VMO_TRY(args.boolean(6, "transpose_x1", &transpose_x1));
  VMO_TRY(args.boolean(7, "transpose_x2", &transpose_x2));
  VMO_TRY(args.output(1, &y));
  if (transpose_x1) return fail(args.op(), "transpose_x1 is not supported");
  VMO_TRY(require_rank(args.op(), "x2", weight.weight, 2));
  if (!transpose_x2) weight.weight = turned_copy(weight.weight);
  const int64_t cols = weight.weight.shape[0];
  VMO_TRY(float_parameters(args.op(), "scale", scale, cols, ScratchSlot::kMaterialise1, &weight.scale));
  return int8_linear(args.op(), x, token_scale, 1, &weight, y);
}

// x int8 [..., K], weight int8 [C] (compressed), deq_scale int64 [N], compress_idx int8, bias int32 [N] -> y float16 [..., N]
Status run_sparse_matmul(const Arguments& args) {
  TensorView x, scale, y;
  Int8Weight weight;
  VMO_TRY(args.require_count(6));
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.input(1, &weight.weight));
  VMO_TRY(args.input(2, &scale));
  VMO_TRY(args.input(3, &weight.index));
  VMO_TRY(args.input(4, &weight.quant_bias));
  VMO_TRY(args.output(1, &y));
  if (weight.index.data == nullptr) return fail(args.op(), "argument compress_idx is missing");
  VMO_TRY(require_rank(args.op(), "deq_scale", scale, 1));
  VMO_TRY(float_parameters(args.op(), "deq_scale", scale, scale.shape[0], ScratchSlot::kMaterialise1, &weight.scale));
  return int8_linear(args.op(), x, TensorView{}, 1, &weight, y);
}

// Scales or offsets as float32 [cols, groups] from [cols], or a matrix like that or turned; null data for None.
Status group_parameters(const char* op, const char* name, const TensorView& given, int64_t cols, int64_t groups,
                        bool turn, ScratchSlot slot, TensorView* out) {
  *out = TensorView{};
  if (given.data == nullptr) return kOk;
  TensorView matrix = given;
  if (given.ndim == 1) {
    matrix.ndim = 2;
    matrix.shape[1] = matrix.strides[1] = 1;
  } else if (given.ndim == 2 && turn) {
    matrix = turned(given);
  }
  VMO_TRY(require_shape(op, name, matrix, {cols, groups}));
  const size_t bytes = static_cast<size_t>(cols * groups) * sizeof(float);
  *out = contiguous_view(scratch(slot, bytes), DType::kFloat32, 2, matrix.shape);
  return cast(op, matrix, *out);
}

// int8 [R, 2 C] of int4 [R, C bytes]: two neighbours share a byte, the first in its low half.
TensorView unpacked(const TensorView& bytes) {
  const int64_t shape[2] = {bytes.shape[0], 2 * bytes.shape[1]};
  TensorView codes = contiguous_view(nullptr, DType::kInt8, 2, shape);
  codes.data = scratch(ScratchSlot::kQuery, codes.bytes());
  auto* out = static_cast<int8_t*>(codes.data);
  for (int64_t row = 0; row < bytes.shape[0]; ++row) {
    for (int64_t column = 0; column < bytes.shape[1]; ++column) {
      const int byte = static_cast<const int8_t*>(bytes.data)[row * bytes.strides[0] + column * bytes.strides[1]];
      *out++ = static_cast<int8_t>((byte & 7) - (byte & 8));
      *out++ = static_cast<int8_t>(byte >> 4);
    }
  }
  return codes;
}

// x [..., K], weight int8 or int4 [N, K] (transpose_weight) or [K, N], antiquant_scale, antiquant_offset or None,
// quant_scale None, quant_offset None, bias or None, transpose_x, transpose_weight, antiquant_group_size
// -> y = x . ((weight + offset) * scale)^T + bias. Scales and offsets are [N], or matrices with an axis of groups in place
// of that of K.
Status run_weight_quant_matmul(const Arguments& args) {
  TensorView x, scale, offset, y;
  CodedWeight weight;
  bool int4 = false, transpose_x = false, transpose_weight = false;
  int64_t group = 0, rows = 0, inner = 0;
  VMO_TRY(args.require_count(11));
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.codes(1, &weight.weight, &int4));
  VMO_TRY(args.input(2, &scale));
  VMO_TRY(args.input(3, &offset));
  VMO_TRY(args.require_none(4, "quant_scale"));
  VMO_TRY(args.require_none(5, "quant_offset"));
  VMO_TRY(args.input(6, &weight.bias));
  VMO_TRY(args.boolean(7, "transpose_x", &transpose_x));
  VMO_TRY(args.boolean(8, "transpose_weight", &transpose_weight));
  VMO_TRY(args.integer(9, "antiquant_group_size", &group));
  VMO_TRY(args.output(1, &y));
  if (transpose_x) return fail(args.op(), "transpose_x is not supported");
  VMO_TRY(row_extents(args.op(), "x", x, &rows, &inner));
  VMO_TRY(require_rank(args.op(), "weight", weight.weight, 2));
  if (int4) weight.weight = unpacked(weight.weight);
  if (!transpose_weight) weight.weight = turned_copy(weight.weight);
  VMO_TRY(require_shape(args.op(), "weight", weight.weight, {kAny, inner}));
  if (group < 0 || (group > 0 && inner % group != 0)) {
    return fail(args.op(), "antiquant_group_size is %lld; expected a number that divides %lld",
                static_cast<long long>(group), static_cast<long long>(inner));
  }
  const int64_t cols = weight.weight.shape[0], groups = group == 0 ? 1 : inner / group;
  VMO_TRY(group_parameters(args.op(), "antiquant_scale", scale, cols, groups, !transpose_weight,
                           ScratchSlot::kMaterialise1, &weight.scale));
  VMO_TRY(group_parameters(args.op(), "antiquant_offset", offset, cols, groups, !transpose_weight, ScratchSlot::kGather,
                           &weight.offset));
  return weight_only_linear(args.op(), x, WeightCodes::kInt8, group, 1, &weight, y);
}

}  // namespace
}  // namespace vmo::plugin

VMO_DEFINE_BUILTIN(QuantV2, vmo::plugin::run_quant)
VMO_DEFINE_BUILTIN(DynamicQuantExt, vmo::plugin::run_dynamic_quant)
VMO_DEFINE_BUILTIN(QuantBatchMatmul, vmo::plugin::run_quant_matmul)
VMO_DEFINE_BUILTIN(QuantLinearSparse, vmo::plugin::run_sparse_matmul)
VMO_DEFINE_BUILTIN(WeightQuantBatchMatmul, vmo::plugin::run_weight_quant_matmul)
