// SPDX-License-Identifier: Apache-2.0
// Reads the attribute tensors of the fused attention node.
#include "attention_attributes.h"

#include "check.h"

namespace vmo {
namespace {

constexpr int64_t kIntCount = 8, kFloatCount = 2;

}  // namespace

Status read_attributes(const char* op, const TensorView& ints, const TensorView& floats, AttentionBlock* block,
                       LayerAttributes* layer) {
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
  const int64_t most[] = {layer == nullptr ? 0 : 1, layer == nullptr ? 0 : kAllBiases};
  for (int i = 6; i < kIntCount; ++i) {
    const int64_t value = index_at(ints, i);
    if (value < 0 || value > most[i - 6]) {
      return fail(op, "int_attributes[%d] is %lld; expected 0 to %lld", i, static_cast<long long>(value),
                  static_cast<long long>(most[i - 6]));
    }
  }
  if (layer != nullptr) *layer = LayerAttributes{index_at(ints, 6) != 0, index_at(ints, 7)};
  const auto* values = static_cast<const float*>(floats.data);
  block->scale = load_unaligned<float>(values);
  block->epsilon = load_unaligned<float>(values + 1);
  return kOk;
}

Status read_block(const char* op, const TensorView* tensors, AttentionBlock* block, LayerAttributes* layer) {
  VMO_TRY(read_attributes(op, tensors[kIntAttributes], tensors[kFloatAttributes], block, layer));
  block->qkv = tensors[kQkv];
  block->query_gamma = tensors[kQueryGamma];
  block->key_gamma = tensors[kKeyGamma];
  block->cos = tensors[kCos];
  block->sin = tensors[kSin];
  block->slot_mapping = tensors[kSlotMapping];
  block->sequences = PagedSequences{tensors[kBlockTables], tensors[kContextLens], tensors[kQueryLens]};
  block->key_cache = tensors[kKeyCache];
  block->value_cache = tensors[kValueCache];
  return kOk;
}

Status attention_block_from(const char* op, const TensorView* tensors) {
  AttentionBlock block{};
  VMO_TRY(read_block(op, tensors, &block));
  return attention_block(op, block, tensors[kAttentionOut]);
}

}  // namespace vmo
