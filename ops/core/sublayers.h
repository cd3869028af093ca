// SPDX-License-Identifier: Apache-2.0
// The two halves of a decoder layer, each as one operation: norm (adding the residual first) and attention, norm and
// gated feed-forward block. They run the operations of core.h one after the other, so they equal the chain of single
// nodes bit for bit; what passes between two of those stays in the calling thread's work memory.
#pragma once

#include "attention_attributes.h"
#include "projection.h"
#include "vmo/core.h"

namespace vmo {

// In a group of ranks (collectives/collectives.h) the last projection of a half gives this rank's part of sums, and y is
// the sum over all ranks.

// Where a half begins: sum = x + residual, or x itself where there is no residual (null data); then its norm.
struct SublayerInput {
  TensorView x;         // [T, hidden]
  TensorView residual;  // [T, hidden] or null data
  TensorView gamma;     // [hidden]
  double epsilon;
};

struct AttentionSublayer {
  SublayerInput in;
  Projection qkv;        // of hidden
  AttentionBlock block;  // but for its qkv
  Projection output;     // [hidden, H * D]
};

struct MlpSublayer {
  SublayerInput in;
  Projection gate_up;  // both [I, hidden]
  Projection down;     // [hidden, I]
};

// y [T, hidden] = what the half adds to the residual, sum [T, hidden] = the residual to add it to.
Status attention_sublayer(const char* op, const AttentionSublayer& args, const TensorView& y, const TensorView& sum);
Status mlp_sublayer(const char* op, const MlpSublayer& args, const TensorView& y, const TensorView& sum);

// Takes (and records, see footprint.h) the work memory that the operation would use, without running it.
Status plan_attention_sublayer(const char* op, const AttentionSublayer& args);
Status plan_mlp_sublayer(const char* op, const MlpSublayer& args);

// Value `index` of float_attributes.
Status read_epsilon(const char* op, const TensorView& floats, int64_t index, double* epsilon);

// What tells a half its weights, in this order. Attention: gamma of the norm, the projections of queries, keys and
// values (biased with kQkvBias), that of the output (kOutputBias), gammas of the heads' query and key norms, the scales
// of int8 caches (kInt8CacheScales).
// Feed-forward block: gamma of the norm, the projections gate and up together, down. Projections: projection.h.
Status read_attention_weights(const char* op, TensorList* list, int64_t optional, AttentionSublayer* args);
Status read_mlp_weights(const char* op, TensorList* list, MlpSublayer* args);

// Takes cos, sin, slot_mapping, block_tables, context_lens and query_lens.
Status read_paged_inputs(const char* op, TensorList* list, AttentionBlock* block);

// Flat tensor lists, shared by the C and MindSpore entry points. Attention: x, residual, the weights, the paged inputs,
// key_cache, value_cache, int_attributes, float_attributes. The latter has a third value: the epsilon of the norm in
// front. The seventh of int_attributes is 1 where there is no residual (that argument is then not read), the eighth says
// which tensors come that not every layer has (a sum of OptionalTensor).
Status read_attention_sublayer(const char* op, const TensorView* tensors, int inputs, AttentionSublayer* args);

// Feed-forward block: x, residual, the weights, float_attributes [>= 1] (epsilon).
Status read_mlp_sublayer(const char* op, const TensorView* tensors, int inputs, MlpSublayer* args);

}  // namespace vmo
