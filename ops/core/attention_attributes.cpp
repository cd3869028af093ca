// SPDX-License-Identifier: Apache-2.0
// Reads the attribute tensors of the fused attention node.
#include "attention_attributes.h"

#include "check.h"

namespace vmo {
namespace {

constexpr int64_t kIntCount = 8, kFloatCount = 2;

Status read_layer(const char* op, const TensorView& ints, const AllowedAttributes& allowed, LayerAttributes* layer) {
  const int64_t first = index_at(ints, 6), optional = index_at(ints, 7);
  if (first < 0 || first > (allowed.first ? 1 : 0)) {
    return fail(op, "int_attributes[6] is %lld; expected 0%s", static_cast<long long>(first),
                allowed.first ? " or 1" : "");
  }
  if (optional < 0 || (optional & ~allowed.optional) != 0) {
    return fail(op, "int_attributes[7] is %lld; expected no bits but those of %lld", static_cast<long long>(optional),
                static_cast<long long>(allowed.optional));
  }
  *layer = LayerAttributes{first != 0, optional};
  return kOk;
}

}  // namespace

Status read_attributes(const char* op, const TensorView& ints, const TensorView& floats,
                       const AllowedAttributes& allowed, AttentionBlock* block, LayerAttributes* layer) {
  VMO_TRY(require_dtype(op, "int_attributes", ints, DType::kInt32));
  VMO_TRY(require_rank(op, "int_attributes", ints, 1));
  VMO_TRY(require_dtype(op, "float_attributes", floats, DType::kFloat32));
  VMO_TRY(require_rank(op, "float_attributes", floats, 1));
  if (ints.shape[0] < kIntCount || floats.shape[0] < kFloatCount || !ints.is_contiguous() || !floats.is_contiguous()) {
    return fail(op, "int_attributes %s and float_attributes %s must have at least %lld and %lld adjacent elements",
                shape_text(ints), shape_text(floats), static_cast<long long>(kIntCount),
                static_cast<long long>(kFloatCount));
  }
  block->heads = index_at(ints, 0);
  block->kv_heads = index_at(ints, 1);
  block->head_dim = index_at(ints, 2);
  block->rotary_dim = index_at(ints, 3);
  block->interleaved = index_at(ints, 4) != 0;
  block->qk_norm = index_at(ints, 5) != 0;
  VMO_TRY(read_layer(op, ints, allowed, layer));
  const auto* values = static_cast<const float*>(floats.data);
  block->scale = load_unaligned<float>(values);
  block->epsilon = load_unaligned<float>(values + 1);
  return kOk;
}

Status attention_block_from(const char* op, const TensorView* tensors, int inputs, const TensorView& out) {
  if (inputs < kCacheScales) return fail(op, "got %d tensors; expected at least %d", inputs, kCacheScales);
  AttentionBlock block{};
  LayerAttributes layer;
  VMO_TRY(read_attributes(op, tensors[kIntAttributes], tensors[kFloatAttributes], kBlockAlone, &block, &layer));
  const int expected = layer.optional == 0 ? kCacheScales : kAttentionBlockTensors;
  if (inputs != expected) return fail(op, "got %d tensors; int_attributes ask for %d", inputs, expected);
  block.qkv = tensors[kQkv];
  block.query_gamma = tensors[kQueryGamma];
  block.key_gamma = tensors[kKeyGamma];
  block.cos = tensors[kCos];
  block.sin = tensors[kSin];
  block.slot_mapping = tensors[kSlotMapping];
  block.sequences = PagedSequences{tensors[kBlockTables], tensors[kContextLens], tensors[kQueryLens]};
  block.key_cache = tensors[kKeyCache];
  block.value_cache = tensors[kValueCache];
  if (layer.optional != 0) block.cache_scales = tensors[kCacheScales];
  return attention_block(op, block, out);
}

}  // namespace vmo
