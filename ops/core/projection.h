// SPDX-License-Identifier: Apache-2.0
// One to three linear layers of the same input, of floats or quantized, as fused operations get them.
#pragma once

#include "vmo/core.h"
#include "vmo/kernel_table.h"

namespace vmo {

// Tensors that an operation takes off the front of its list.
class TensorList {
 public:
  TensorList(const TensorView* tensors, int count) : next_(tensors), left_(count) {}

  int left() const { return left_; }
  // The next tensor, which stays in the list; null data and no dtype behind the last one.
  TensorView peek() const { return left_ > 0 ? *next_ : TensorView{}; }
  Status take(const char* op, TensorView* out);

 private:
  const TensorView* next_;
  int left_;
};

// How a projection is stored. The values are those of descriptors. The first three are those of CodeKind: activations
// and weights are int8. The last two have floats as activations.
enum class ProjectionKind : int32_t {
  kFloat = -1, kDivide = 0, kMultiply = 1, kPerToken = 2, kWeightInt8 = 3, kWeightInt4 = 4
};

// How compressed weights are coded; the values are those of descriptors.
enum class WeightCoding : int32_t { kTileBitmap = 1 };

// Elements of a descriptor int32: the kind and K; where only weights are quantized the elements along K of a group (0: one
// group), and 1 if weights have offsets; else two zeros. Where weights are compressed the coding of each follows: there may
// be fewer of them than layers, one holding the outputs of several.
enum DescriptorElement { kDescriptorKind, kDescriptorInner, kDescriptorGroup, kDescriptorOffsets, kDescriptorElements };

struct Projection {
  ProjectionKind kind = ProjectionKind::kFloat;
  int weights = 0;
  int64_t inner = 0;          // K
  Int8Weight w[kMaxWeights];  // of floats: only weight and bias
  ActivationCodes codes{};    // of int8 activations
  // Where only weights are quantized:
  int64_t group = 0;
  bool has_offsets = false;
  TensorView offsets[kMaxWeights];
  bool compressed = false;

  bool quantized() const { return kind != ProjectionKind::kFloat; }
  bool int8_inputs() const { return quantized() && !weight_only(); }
  bool weight_only() const { return kind >= ProjectionKind::kWeightInt8; }
};

// Takes the tensors of a projection of `weights` weights off the list; `name` is that of the weights in messages.
//
// Of floats: the weights [N, K], then as many biases [N] if `biased`.
// Quantized: a descriptor, which is what tells them apart; the weights int8 [N, K], or compressed ones int8 [C] and as many
// indexes int8 [8 * tiles]; the biases as above, as many scales float32 [N]; then with static scales as many quant_bias int32 [N] and the input's scale and offset, both float32 [K];
// per token the factors float32 [K] of the input. Where only weights are quantized they and their scales are those of
// CodedWeight (vmo/core.h), and as many offsets follow if there are any.
Status read_projection(const char* op, const char* name, TensorList* list, int weights, bool biased, Projection* out);

// Outputs of one weight, and of all.
int64_t outputs_of(const Projection& projection, int weight);
int64_t width_of(const Projection& projection);

// y [..., N1+N2+..] of x [..., K].
Status project(const char* op, const Projection& projection, const TensorView& x, const TensorView& y);

// The same of y of rms_norm or add_rms_norm (see norm_codes) where projection.int8_inputs(): no normed row is written.
Status project_normed(const char* op, const Projection& projection, const TensorView& x, const TensorView& residual,
                      const TensorView& gamma, double epsilon, const TensorView& sum, const TensorView& y);

// y float32 [R, V] = the projection of those rows of hidden [T, K] that `rows` int32/int64 [R] picks.
Status lm_head(const char* op, const TensorView& hidden, const TensorView& rows, const Projection& head,
               const TensorView& y);

// Takes (and records, see footprint.h) the work memory of that for `rows` rows.
Status plan_projection(const char* op, const Projection& projection, int64_t rows);

}  // namespace vmo
