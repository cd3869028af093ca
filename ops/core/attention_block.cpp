// SPDX-License-Identifier: Apache-2.0
// The fused attention node of a layer: split, qk-norm, rotary embedding, cache write, paged attention. It calls the
// same kernels as the unfused chain, one token at a time, so both give the same bits.
#include "check.h"
#include "kv_cache.h"
#include "row_tasks.h"

namespace vmo {
namespace {

struct Inputs {
  const ElementKernels* kernels = nullptr;
  size_t element = 0;
  Rows qkv, cos, sin;
  bool angles_are_float = false;
  Cache keys, values;
  CacheScales scales;
  SequenceTable table;
  int64_t tokens = 0;
};

Status check_sizes(const char* op, const AttentionBlock& args) {
  const bool heads_fit = args.kv_heads > 0 && args.heads > 0 && args.heads % args.kv_heads == 0;
  const bool rotary_fits = args.rotary_dim >= 0 && args.rotary_dim <= args.head_dim && args.rotary_dim % 2 == 0;
  if (heads_fit && rotary_fits && args.head_dim > 0) return kOk;
  return fail(op,
              "int_attributes give heads %lld, kv_heads %lld, head_dim %lld, rotary_dim %lld; expected heads to be a "
              "positive multiple of kv_heads and an even rotary_dim of at most head_dim",
              static_cast<long long>(args.heads), static_cast<long long>(args.kv_heads),
              static_cast<long long>(args.head_dim), static_cast<long long>(args.rotary_dim));
}

Status read_angles(const char* op, const AttentionBlock& args, Inputs* in) {
  if (args.cos.dtype != DType::kFloat32) VMO_TRY(require_dtype(op, "cos", args.cos, args.qkv.dtype));
  VMO_TRY(require_dtype(op, "sin", args.sin, args.cos.dtype));
  VMO_TRY(require_shape(op, "cos", args.cos, {in->tokens, args.rotary_dim}));
  VMO_TRY(require_shape(op, "sin", args.sin, {in->tokens, args.rotary_dim}));
  VMO_TRY(input_rows(op, "cos", args.cos, args.rotary_dim, ScratchSlot::kMaterialise1, &in->cos));
  VMO_TRY(input_rows(op, "sin", args.sin, args.rotary_dim, ScratchSlot::kGather, &in->sin));
  in->angles_are_float = args.cos.dtype == DType::kFloat32;
  return kOk;
}

Status read_caches(const char* op, const AttentionBlock& args, Inputs* in) {
  VMO_TRY(read_cache_scales(op, args.cache_scales, args.kv_heads * args.head_dim, &in->scales));
  const DType dtype = in->scales.key_scale == nullptr ? args.qkv.dtype : DType::kInt8;
  VMO_TRY(require_dtype(op, "key_cache", args.key_cache, dtype));
  VMO_TRY(require_dtype(op, "value_cache", args.value_cache, dtype));
  VMO_TRY(require_shape(op, "key_cache", args.key_cache, {kAny, kAny, args.kv_heads, args.head_dim}));
  VMO_TRY(read_cache(op, "key_cache", args.key_cache, &in->keys));
  VMO_TRY(read_cache(op, "value_cache", args.value_cache, &in->values));
  VMO_TRY(require_same_layout(op, in->keys, in->values));
  VMO_TRY(check_slots(op, args.slot_mapping, in->tokens, in->keys.slots()));
  return read_sequences(op, args.sequences, in->keys, in->tokens, &in->table);
}

Status check_gamma(const char* op, const char* name, const AttentionBlock& args, const TensorView& gamma) {
  VMO_TRY(require_dtype(op, name, gamma, args.qkv.dtype));
  VMO_TRY(require_shape(op, name, gamma, {args.head_dim}));
  if (!gamma.is_contiguous()) return fail(op, "argument %s has a stride; expected adjacent elements", name);
  return kOk;
}

Status read_inputs(const char* op, const AttentionBlock& args, Inputs* in) {
  VMO_TRY(check_sizes(op, args));
  VMO_TRY(dense_kernels(op, "qkv", args.qkv.dtype, &in->kernels));
  in->element = size_of(args.qkv.dtype);
  const int64_t width = (args.heads + 2 * args.kv_heads) * args.head_dim;
  VMO_TRY(require_shape(op, "qkv", args.qkv, {kAny, width}));
  in->tokens = args.qkv.shape[0];
  VMO_TRY(input_rows(op, "qkv", args.qkv, width, ScratchSlot::kMaterialise0, &in->qkv));
  if (args.qk_norm) {
    VMO_TRY(check_gamma(op, "q_gamma", args, args.query_gamma));
    VMO_TRY(check_gamma(op, "k_gamma", args, args.key_gamma));
  }
  VMO_TRY(read_angles(op, args, in));
  return read_caches(op, args, in);
}

// Norm and rotation of `heads` adjacent heads of one token, from `source` to `target`.
void prepare_heads(const AttentionBlock& args, const Inputs& in, int64_t token, int64_t heads, const TensorView& gamma,
                   const char* source, char* target) {
  if (args.qk_norm) {
    NormArgs norm{};
    norm.x = source;
    norm.ldx = norm.ldy = norm.cols = args.head_dim;
    norm.gamma = static_cast<const char*>(gamma.data);
    norm.epsilon = static_cast<float>(args.epsilon);
    norm.y = target;
    in.kernels->norm(norm, 0, heads);
    source = target;
  }
  const auto angle_bytes = static_cast<int64_t>(in.angles_are_float ? sizeof(float) : in.element);
  RotaryArgs rotary{};
  rotary.x = source;
  rotary.heads = heads;
  rotary.head_dim = args.head_dim;
  rotary.rotary_dim = args.rotary_dim;
  rotary.interleaved = args.interleaved;
  rotary.cos = in.cos.data + token * in.cos.stride * angle_bytes;
  rotary.sin = in.sin.data + token * in.sin.stride * angle_bytes;
  rotary.cos_is_float = in.angles_are_float;
  rotary.y = target;
  in.kernels->rotary(rotary, 0, 1);
}

// The int8 codes of one row of all kv heads.
void write_codes(const AttentionBlock& args, const Inputs& in, const char* row, const float* scale, const float* offset,
                 char* codes) {
  QuantizeArgs quantize{};
  quantize.x = row;
  quantize.cols = args.kv_heads * args.head_dim;
  quantize.scale = scale;
  quantize.offset = offset;
  quantize.codes = reinterpret_cast<int8_t*>(codes);
  in.kernels->quantize(quantize, 0, 1);
}

void prepare_token(const AttentionBlock& args, const Inputs& in, int64_t token, char* query) {
  const auto head_bytes = args.head_dim * static_cast<int64_t>(in.element);
  const char* q = in.qkv.data + token * in.qkv.stride * static_cast<int64_t>(in.element);
  const char* k = q + args.heads * head_bytes;
  const char* v = k + args.kv_heads * head_bytes;
  prepare_heads(args, in, token, args.heads, args.query_gamma, q, query + token * args.heads * head_bytes);
  const int64_t slot = index_at(args.slot_mapping, token);
  if (slot < 0) return;
  const auto row_bytes = static_cast<size_t>(args.kv_heads * head_bytes);
  if (in.scales.key_scale == nullptr) {
    prepare_heads(args, in, token, args.kv_heads, args.key_gamma, k, in.keys.row(slot, in.element));
    std::memcpy(in.values.row(slot, in.element), v, row_bytes);
    return;
  }
  auto* key = static_cast<char*>(scratch(ScratchSlot::kTile, row_bytes));
  prepare_heads(args, in, token, args.kv_heads, args.key_gamma, k, key);
  write_codes(args, in, key, in.scales.key_scale, in.scales.key_offset, in.keys.row(slot, 1));
  write_codes(args, in, v, in.scales.value_scale, in.scales.value_offset, in.values.row(slot, 1));
}

AttentionArgs attention_args(const AttentionBlock& block, const Inputs& in, const char* query, void* out) {
  AttentionArgs args{};
  args.query = query;
  args.ldquery = args.ldout = block.heads * block.head_dim;
  args.key_cache = in.keys.data;
  args.value_cache = in.values.data;
  args.key_block_stride = in.keys.block_stride;
  args.key_token_stride = in.keys.token_stride;
  args.value_block_stride = in.values.block_stride;
  args.value_token_stride = in.values.token_stride;
  args.key_scale = in.scales.key_scale;
  args.value_scale = in.scales.value_scale;
  args.value_offset = in.scales.value_offset;
  args.block_size = in.keys.block_size;
  args.heads = block.heads;
  args.kv_heads = block.kv_heads;
  args.head_dim = block.head_dim;
  args.scale = static_cast<float>(block.scale);
  args.out = static_cast<char*>(out);
  return args;
}

}  // namespace

Status attention_block(const char* op, const AttentionBlock& args, const TensorView& out) {
  Inputs in;
  VMO_TRY(read_inputs(op, args, &in));
  const int64_t width = args.heads * args.head_dim;
  VMO_TRY(require_dtype(op, "out", out, args.qkv.dtype));
  VMO_TRY(require_output(op, "out", out, in.tokens * width));
  char* query = static_cast<char*>(
      scratch(ScratchSlot::kQuery, static_cast<size_t>(in.tokens * width) * in.element));
  for_row_ranges(in.tokens, args.qkv.shape[1], [&](int64_t token0, int64_t token1) {
    for (int64_t token = token0; token < token1; ++token) prepare_token(args, in, token, query);
  });
  run_attention(*in.kernels, in.element, attention_args(args, in, query, out.data), in.table, in.tokens);
  return kOk;
}

}  // namespace vmo
