// SPDX-License-Identifier: Apache-2.0
// The flat tensor list of the fused attention node, shared by its C and MindSpore entry points.
#pragma once

#include "vmo/core.h"

namespace vmo {

// Positions in the list.
enum AttentionBlockTensor {
  kQkv, kQueryGamma, kKeyGamma, kCos, kSin, kSlotMapping, kBlockTables, kContextLens, kQueryLens, kKeyCache,
  kValueCache, kIntAttributes, kFloatAttributes, kAttentionOut, kAttentionBlockTensors
};

enum AttentionSublayerBias { kQkvBias = 1, kOutputBias = 2, kAllBiases = 3 };

// What nodes that hold more than the attention block are told besides.
struct LayerAttributes {
  bool first = false;  // no residual
  int64_t biases = 0;  // a sum of AttentionSublayerBias
};

// int_attributes int32 [>= 8]: heads, kv_heads, head_dim, rotary_dim, interleaved, has_qk_norm, then LayerAttributes,
// or 0 where `layer` is null.
// float_attributes float32 [>= 2]: softmax scale, epsilon of the query and key norms.
Status read_attributes(const char* op, const TensorView& ints, const TensorView& floats, AttentionBlock* block,
                       LayerAttributes* layer = nullptr);

// The operation that a list of kAttentionBlockTensors tensors (the last one unused here) with those attributes asks for.
Status read_block(const char* op, const TensorView* tensors, AttentionBlock* block,
                  LayerAttributes* layer = nullptr);

// attention_block on such a list.
Status attention_block_from(const char* op, const TensorView* tensors);

}  // namespace vmo
