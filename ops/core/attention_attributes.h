// SPDX-License-Identifier: Apache-2.0
// The flat tensor list of the fused attention node, shared by its C and MindSpore entry points.
#pragma once

#include "vmo/core.h"

namespace vmo {

// Positions in the list. The last one is only there if int_attributes say so.
enum AttentionBlockTensor {
  kQkv, kQueryGamma, kKeyGamma, kCos, kSin, kSlotMapping, kBlockTables, kContextLens, kQueryLens, kKeyCache,
  kValueCache, kIntAttributes, kFloatAttributes, kCacheScales, kAttentionBlockTensors
};

// Tensors that not every layer has: biases of the projections, scales of int8 caches.
enum OptionalTensor { kQkvBias = 1, kOutputBias = 2, kInt8CacheScales = 4 };

// What nodes are told besides the block's own attributes.
struct LayerAttributes {
  bool first = false;    // no residual
  int64_t optional = 0;  // a sum of OptionalTensor: those that come
};

// Which values of LayerAttributes a node may be told.
struct AllowedAttributes {
  bool first;
  int64_t optional;
};
constexpr AllowedAttributes kNoLayer{false, 0};
constexpr AllowedAttributes kBlockAlone{false, kInt8CacheScales};
constexpr AllowedAttributes kWholeLayer{true, kQkvBias | kOutputBias | kInt8CacheScales};

// int_attributes int32 [>= 8]: heads, kv_heads, head_dim, rotary_dim, interleaved, has_qk_norm, then LayerAttributes.
// float_attributes float32 [>= 2]: softmax scale, epsilon of the query and key norms.
Status read_attributes(const char* op, const TensorView& ints, const TensorView& floats,
                       const AllowedAttributes& allowed, AttentionBlock* block, LayerAttributes* layer);

// attention_block on a list of `inputs` tensors.
Status attention_block_from(const char* op, const TensorView* tensors, int inputs, const TensorView& out);

}  // namespace vmo
