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

// int_attributes int32 [>= 8]: heads, kv_heads, head_dim, rotary_dim, interleaved, has_qk_norm, then reserved (0; the
// first of them is read to `flag` when that is not null).
// float_attributes float32 [>= 2]: softmax scale, epsilon of the query and key norms.
Status read_attributes(const char* op, const TensorView& ints, const TensorView& floats, AttentionBlock* block,
                       bool* flag = nullptr);

// The operation that a list of kAttentionBlockTensors tensors (the last one unused here) with those attributes asks for.
Status read_block(const char* op, const TensorView* tensors, AttentionBlock* block, bool* flag = nullptr);

// attention_block on such a list.
Status attention_block_from(const char* op, const TensorView* tensors);

}  // namespace vmo
