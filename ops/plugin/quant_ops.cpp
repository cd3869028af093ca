// SPDX-License-Identifier: Apache-2.0
// Builtin primitives of int8 layers. The comment of each gives its arguments in call order.
#include <cstring>
#include <utility>

#include "arguments.h"
#include "core/check.h"
#include "vmo/core.h"

namespace vmo::plugin {
namespace {

// Parameters as float32 [count], from [count] or [1] of any dense type, or from integers that hold the bits of a float32
// in their lower half (scales of Ascend's float16 kernels); null data for None.
Status float_parameters(const char* op, const char* name, const TensorView& given, int64_t count, ScratchSlot slot,
                        TensorView* out) {
  *out = TensorView{};
  if (given.data == nullptr) return kOk;
  if (given.numel() != count && given.numel() != 1) {
    return fail(op, "argument %s has shape %s; expected %lld elements or one", name, shape_text(given),
                static_cast<long long>(count));
  }
  auto* values = static_cast<float*>(scratch(slot, static_cast<size_t>(count) * sizeof(float)));
  const int64_t stored = given.numel();
  const TensorView view = contiguous_view(values, DType::kFloat32, 1, &stored);
  if (given.dtype == DType::kInt64 || given.dtype == DType::kUInt64) {
    if (!given.is_contiguous()) return fail(op, "argument %s has a stride; expected adjacent elements", name);
    const auto* words = static_cast<const char*>(given.data);
    for (int64_t i = 0; i < stored; ++i) {
      const auto bits = static_cast<uint32_t>(load_unaligned<uint64_t>(words + i * 8));
      std::memcpy(values + i, &bits, sizeof(bits));
    }
  } else {
    VMO_TRY(cast(op, given, view));
  }
  for (int64_t i = stored; i < count; ++i) values[i] = values[0];
  *out = contiguous_view(values, DType::kFloat32, 1, &count);
  return kOk;
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
  if (!transpose_x2) {
    std::swap(weight.weight.shape[0], weight.weight.shape[1]);
    std::swap(weight.weight.strides[0], weight.weight.strides[1]);
    const TensorView turned = weight.weight;
    weight.weight = contiguous_view(scratch(ScratchSlot::kMaterialise2, turned.bytes()), turned.dtype, 2, turned.shape);
    copy_contiguous(turned, weight.weight.data);
  }
  const int64_t cols = weight.weight.shape[0];
  VMO_TRY(float_parameters(args.op(), "scale", scale, cols, ScratchSlot::kMaterialise1, &weight.scale));
  return int8_linear(args.op(), x, token_scale, 1, &weight, y);
}

}  // namespace
}  // namespace vmo::plugin

VMO_DEFINE_BUILTIN(QuantV2, vmo::plugin::run_quant)
VMO_DEFINE_BUILTIN(DynamicQuantExt, vmo::plugin::run_dynamic_quant)
VMO_DEFINE_BUILTIN(QuantBatchMatmul, vmo::plugin::run_quant_matmul)
