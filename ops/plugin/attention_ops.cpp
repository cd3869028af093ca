// SPDX-License-Identifier: Apache-2.0
// Builtin primitives of attention. The comment of each gives its arguments in call order.
#include "arguments.h"
#include "core/check.h"
#include "float_parameters.h"
#include "vmo/core.h"

namespace vmo::plugin {
namespace {

// Reads a tensor as [rows, width].
Status flatten(const char* op, const char* name, const TensorView& view, int64_t width, ScratchSlot slot,
               TensorView* out) {
  Rows rows;
  VMO_TRY(input_rows(op, name, view, width, slot, &rows));
  out->data = const_cast<char*>(rows.data);
  out->dtype = view.dtype;
  out->ndim = 2;
  out->shape[0] = rows.rows;
  out->shape[1] = width;
  out->strides[0] = rows.stride;
  out->strides[1] = 1;
  return kOk;
}

// cos_format of ApplyRotaryPosEmb: 0 and 1 take tables [positions, D] indexed by position_ids, 2 and 3 one row per
// token; odd values pair neighbouring elements, even ones the two halves of a head.
constexpr int64_t kRowPerToken = 2;
constexpr int64_t kMaxCosFormat = 3;

Status pick_angles(const Arguments& args, const TensorView& table, const TensorView& positions, int64_t tokens,
                   ScratchSlot slot, TensorView* out) {
  if (positions.numel() != tokens) {
    return fail(args.op(), "position_ids has shape %s; cos_format 0 and 1 expect one position for each of %lld tokens",
                shape_text(positions), static_cast<long long>(tokens));
  }
  const int64_t shape[2] = {tokens, table.dim(-1)};
  const size_t bytes = static_cast<size_t>(shape[0] * shape[1]) * size_of(table.dtype);
  *out = contiguous_view(scratch(slot, bytes), table.dtype, 2, shape);
  return gather(args.op(), table, positions, 0, 0, *out);
}

// query [..., H * D], key [..., KH * D], cos, sin [tokens or positions, D], position_ids, cos_format -> query, key
Status run_apply_rotary(const Arguments& args) {
  VMO_TRY(args.require_count(8));
  TensorView inputs[2], cos, sin, positions, outputs[2];
  int64_t format = 0;
  VMO_TRY(args.input(0, &inputs[0]));
  VMO_TRY(args.input(1, &inputs[1]));
  VMO_TRY(args.input(2, &cos));
  VMO_TRY(args.input(3, &sin));
  VMO_TRY(args.input(4, &positions));
  VMO_TRY(args.integer(5, "cos_format", &format));
  VMO_TRY(args.output(2, &outputs[0]));
  VMO_TRY(args.output(1, &outputs[1]));
  if (format < 0 || format > kMaxCosFormat) {
    return fail(args.op(), "cos_format is %lld; expected 0 to 3", static_cast<long long>(format));
  }
  if (cos.ndim < 2 || sin.ndim < 2) return fail(args.op(), "cos and sin need at least two dimensions");
  const int64_t width = cos.dim(-1);
  VMO_TRY(flatten(args.op(), "cos", cos, width, ScratchSlot::kMaterialise1, &cos));
  VMO_TRY(flatten(args.op(), "sin", sin, width, ScratchSlot::kMaterialise2, &sin));
  for (int i = 0; i < 2; ++i) {
    const TensorView& input = inputs[i];
    if (input.ndim < 2) return fail(args.op(), "query and key need at least two dimensions");
    TensorView x, angles[2] = {cos, sin};
    // A three-dimensional [tokens, heads, D] input is one row of heads per token.
    const int64_t row = input.ndim == 3 && input.dim(-1) == width ? input.dim(-1) * input.dim(-2) : input.dim(-1);
    VMO_TRY(flatten(args.op(), i == 0 ? "query" : "key", input, row, ScratchSlot::kQuery, &x));
    if (format < kRowPerToken) {
      VMO_TRY(pick_angles(args, cos, positions, x.shape[0], ScratchSlot::kGather, &angles[0]));
      VMO_TRY(pick_angles(args, sin, positions, x.shape[0], ScratchSlot::kPack, &angles[1]));
    }
    VMO_TRY(rotary(args.op(), x, angles[0], angles[1], width, format % 2 == 1, outputs[i]));
  }
  return kOk;
}

// Strides of `angles` stretched over the shape of x (extents of 1 repeat).
Status broadcast(const char* op, const char* name, const TensorView& angles, const TensorView& x, TensorView* out) {
  *out = angles;
  if (angles.ndim != x.ndim) {
    return fail(op, "argument %s has shape %s; expected %d dimensions", name, shape_text(angles), x.ndim);
  }
  for (int i = 0; i < x.ndim; ++i) {
    if (angles.shape[i] == x.shape[i]) continue;
    if (angles.shape[i] != 1) {
      return fail(op, "argument %s of shape %s does not broadcast to x %s", name, shape_text(angles), shape_text(x));
    }
    out->shape[i] = x.shape[i];
    out->strides[i] = 0;
  }
  return kOk;
}

// x [.., .., .., D], cos, sin broadcastable to it, mode (0: halves, 1: pairs) -> y
Status run_rotary(const Arguments& args) {
  VMO_TRY(args.require_count(5));
  TensorView x, cos, sin, y;
  int64_t mode = 0;
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.input(1, &cos));
  VMO_TRY(args.input(2, &sin));
  VMO_TRY(args.integer(3, "mode", &mode));
  VMO_TRY(args.output(1, &y));
  if (mode != 0 && mode != 1) {
    return fail(args.op(), "mode is %lld; expected 0 (halves) or 1 (pairs)", static_cast<long long>(mode));
  }
  if (x.ndim < 2) return fail(args.op(), "x has shape %s; expected at least two dimensions", shape_text(x));
  VMO_TRY(broadcast(args.op(), "cos", cos, x, &cos));
  VMO_TRY(broadcast(args.op(), "sin", sin, x, &sin));
  const int64_t width = x.dim(-1);
  VMO_TRY(flatten(args.op(), "x", x, width, ScratchSlot::kQuery, &x));
  VMO_TRY(flatten(args.op(), "cos", cos, width, ScratchSlot::kGather, &cos));
  VMO_TRY(flatten(args.op(), "sin", sin, width, ScratchSlot::kPack, &sin));
  return rotary(args.op(), x, cos, sin, width, mode == 1, y);
}

// key, value, key_cache, value_cache, slot_mapping -> copy of key (its readers only need an order)
Status run_reshape_and_cache(const Arguments& args) {
  VMO_TRY(args.require_count(6));
  TensorView key, value, key_cache, value_cache, slots, out;
  VMO_TRY(args.input(0, &key));
  VMO_TRY(args.input(1, &value));
  VMO_TRY(args.input(2, &key_cache));
  VMO_TRY(args.input(3, &value_cache));
  VMO_TRY(args.input(4, &slots));
  VMO_TRY(args.output(1, &out));
  VMO_TRY(reshape_and_cache(args.op(), key, value, key_cache, value_cache, slots));
  return copy(args.op(), key, out);
}

// Positions of PagedAttention's arguments.
enum PagedAttentionArgument {
  kQuery, kKeyCache, kValueCache, kBlockTables, kContextLens, kAntiquantScale, kAntiquantOffset, kMask, kQueryLens,
  kAlibi, kHeads, kScale, kKvHeads, kQuantMode, kMaskMode, kMlaWidth, kPagedAttentionArguments = 17
};

// DEFAULT and MASK_DEFAULT in MindSpore's numbering of mode names.
constexpr int64_t kDefaultQuantMode = 0, kDefaultMaskMode = 0;

// What int8 caches stand for, (code + offset) * scale of antiquant_scale and antiquant_offset [2, channels], keys first, as
// the kernels take it; null data for None.
Status cache_scales(const Arguments& args, int64_t channels, TensorView* out) {
  *out = TensorView{};
  if (args.absent(kAntiquantScale) && args.absent(kAntiquantOffset)) return kOk;
  TensorView given[2], values[2];
  VMO_TRY(args.input(kAntiquantScale, &given[0]));
  VMO_TRY(args.input(kAntiquantOffset, &given[1]));
  const int64_t count = 2 * channels, shape[2] = {4, channels};
  VMO_TRY(require_shape(args.op(), "antiquant_scale", given[0], {2, channels}));
  VMO_TRY(require_shape(args.op(), "antiquant_offset", given[1], {2, channels}));
  VMO_TRY(float_parameters(args.op(), "antiquant_scale", given[0], count, ScratchSlot::kMaterialise1, &values[0]));
  VMO_TRY(float_parameters(args.op(), "antiquant_offset", given[1], count, ScratchSlot::kPack, &values[1]));
  auto* rows = static_cast<float*>(scratch(ScratchSlot::kGather, static_cast<size_t>(4 * channels) * sizeof(float)));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = i / channels * 2, column = i % channels;
    rows[row * channels + column] = static_cast<const float*>(values[0].data)[i];
    rows[(row + 1) * channels + column] = -static_cast<const float*>(values[1].data)[i];
  }
  *out = contiguous_view(rows, DType::kFloat32, 2, shape);
  return kOk;
}

Status run_paged_attention(const Arguments& args) {
  VMO_TRY(args.require_count(kPagedAttentionArguments));
  VMO_TRY(args.require_none(kMask, "attn_mask (attention is causal by itself)"));
  VMO_TRY(args.require_none(kAlibi, "alibi_mask"));
  TensorView query, keys, values, scales, out;
  PagedSequences sequences;
  int64_t heads = 0, kv_heads = 0, quant_mode = 0, mask_mode = 0, mla_width = 0;
  double scale = 0;
  VMO_TRY(args.input(kQuery, &query));
  VMO_TRY(args.input(kKeyCache, &keys));
  VMO_TRY(args.input(kValueCache, &values));
  VMO_TRY(args.input(kBlockTables, &sequences.block_tables));
  VMO_TRY(args.input(kContextLens, &sequences.context_lens));
  VMO_TRY(args.input(kQueryLens, &sequences.query_lens));
  VMO_TRY(args.integer(kHeads, "head_num", &heads));
  VMO_TRY(args.real(kScale, "scale_value", &scale));
  VMO_TRY(args.integer(kKvHeads, "kv_head_num", &kv_heads));
  VMO_TRY(args.integer(kQuantMode, "kv_cache_quant_mode", &quant_mode));
  VMO_TRY(args.integer(kMaskMode, "mask_mode", &mask_mode));
  VMO_TRY(args.integer(kMlaWidth, "mla_v_dim", &mla_width));
  if (quant_mode != kDefaultQuantMode) {
    return fail(args.op(), "kv_cache_quant_mode is %lld; expected %lld (DEFAULT): a scale for each channel",
                static_cast<long long>(quant_mode), static_cast<long long>(kDefaultQuantMode));
  }
  if (mask_mode != kDefaultMaskMode) {
    return fail(args.op(), "mask_mode is %lld; expected %lld (MASK_DEFAULT): attention is causal by itself",
                static_cast<long long>(mask_mode), static_cast<long long>(kDefaultMaskMode));
  }
  if (mla_width != 0) return fail(args.op(), "mla_v_dim is %lld; expected 0", static_cast<long long>(mla_width));
  VMO_TRY(args.output(1, &out));
  VMO_TRY(require_rank(args.op(), "key_cache", keys, 4));
  VMO_TRY(cache_scales(args, keys.shape[2] * keys.shape[3], &scales));
  return paged_attention(args.op(), query, keys, values, sequences, heads, kv_heads, scale, out, scales);
}

}  // namespace
}  // namespace vmo::plugin

VMO_DEFINE_BUILTIN(ApplyRotaryPosEmb, vmo::plugin::run_apply_rotary)
VMO_DEFINE_BUILTIN(RotaryPositionEmbedding, vmo::plugin::run_rotary)
VMO_DEFINE_BUILTIN(ReshapeAndCache, vmo::plugin::run_reshape_and_cache)
VMO_DEFINE_BUILTIN(PagedAttention, vmo::plugin::run_paged_attention)
