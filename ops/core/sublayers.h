// SPDX-License-Identifier: Apache-2.0
// The two halves of a decoder layer, each as one operation: norm (adding the residual first) and attention, norm and
// gated feed-forward block. They run the operations of core.h one after the other, so they equal the chain of single
// nodes bit for bit; what passes between two of those stays in the calling thread's work memory.
#pragma once

#include "vmo/core.h"

namespace vmo {

// Where a half begins: sum = x + residual, or x itself where there is no residual (null data); then its norm.
struct SublayerInput {
  TensorView x;         // [T, hidden]
  TensorView residual;  // [T, hidden] or null data
  TensorView gamma;     // [hidden]
  double epsilon;
};

struct AttentionSublayer {
  SublayerInput in;
  TensorView qkv[3];       // weights [N, hidden]
  const TensorView* bias;  // null, or three of [N]
  AttentionBlock block;    // but for its qkv
  TensorView output;       // weight [hidden, H * D]
  const TensorView* output_bias;  // null, or [hidden]
};

struct MlpSublayer {
  SublayerInput in;
  TensorView gate, up;  // [I, hidden]
  TensorView down;      // [hidden, I]
};

// y [T, hidden] = what the half adds to the residual, sum [T, hidden] = the residual to add it to.
Status attention_sublayer(const char* op, const AttentionSublayer& args, const TensorView& y, const TensorView& sum);
Status mlp_sublayer(const char* op, const MlpSublayer& args, const TensorView& y, const TensorView& sum);

// Takes (and records, see footprint.h) the work memory that the operation would use, without running it.
Status plan_attention_sublayer(const char* op, const AttentionSublayer& args);
Status plan_mlp_sublayer(const char* op, const MlpSublayer& args);

// Flat tensor lists, shared by the C and MindSpore entry points. Attention: x, residual, gamma, the three weights, then
// (kQkvBias) their biases, the output weight, then (kOutputBias) its bias, the tensors of AttentionBlockTensor between
// kQkv and kAttentionOut, y, sum. float_attributes has a third value: the epsilon of the norm in front. A 1 in the
// seventh of int_attributes says that there is no residual: that argument is then not read.
enum AttentionSublayerBias { kNoBias = 0, kQkvBias = 1, kOutputBias = 2 };
int attention_sublayer_inputs(int biases);
Status read_attention_sublayer(const char* op, const TensorView* tensors, int biases, AttentionSublayer* args);

// Feed-forward block: x, residual, gamma, gate, up, down, float_attributes [>= 1] (epsilon), y, sum.
constexpr int kMlpSublayerInputs = 7;
Status read_mlp_sublayer(const char* op, const TensorView* tensors, MlpSublayer* args);

}  // namespace vmo
