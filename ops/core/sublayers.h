// SPDX-License-Identifier: Apache-2.0
// The two halves of a decoder layer, each as one operation: norm (adding the residual first) and attention, norm and
// gated feed-forward block. They run the operations of core.h one after the other, so they equal the chain of single
// nodes bit for bit; what passes between two of those stays in the calling thread's work memory.
#pragma once

#include "attention_attributes.h"
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
  TensorView bias[3];      // [N], with kQkvBias
  AttentionBlock block;    // but for its qkv
  TensorView output;       // weight [hidden, H * D]
  TensorView output_bias;  // [hidden], with kOutputBias
  int64_t biases;          // a sum of AttentionSublayerBias
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

// Value `index` of float_attributes.
Status read_epsilon(const char* op, const TensorView& floats, int64_t index, double* epsilon);

// Flat tensor lists, shared by the C and MindSpore entry points. Attention: x, residual, gamma, the three weights, then
// (kQkvBias) their biases, the output weight, then (kOutputBias) its bias, the tensors of AttentionBlockTensor between
// kQkv and kAttentionOut. float_attributes has a third value: the epsilon of the norm in front. The seventh of
// int_attributes is 1 where there is no residual (that argument is then not read), the eighth says which biases come.
// Tensors of the list in front of AttentionBlockTensor.
int attention_sublayer_weights(int64_t biases);
Status read_attention_sublayer(const char* op, const TensorView* tensors, int inputs, AttentionSublayer* args);

// Feed-forward block: x, residual, gamma, gate, up, down, float_attributes [>= 1] (epsilon).
constexpr int kMlpSublayerInputs = 7;
Status read_mlp_sublayer(const char* op, const TensorView* tensors, MlpSublayer* args);

}  // namespace vmo
