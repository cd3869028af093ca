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

// int_attributes int32 [>= 8]: heads, kv_heads, head_dim, rotary_dim, interleaved, has_qk_norm, then reserved (0).
// float_attributes float32 [>= 2]: softmax scale, norm epsilon.
Status read_attributes(const char* op, const TensorView& ints, const TensorView& floats, AttentionBlock* block);

// attention_block on a list of kAttentionBlockTensors tensors with those attributes.
Status attention_block_from(const char* op, const TensorView* tensors);

}  // namespace vmo
