// SPDX-License-Identifier: Apache-2.0
// decoder_layers.
#include "decoder_layers.h"

#include <algorithm>
#include <cstdio>

#include "check.h"
#include "workspace.h"

namespace vmo {
namespace {

constexpr int kShared = 9;      // tensors in front of those of the layers
constexpr int kFirstPaged = 1;  // cos, sin and the four tables
constexpr int kPaged = 6;
constexpr int kAttributes = 7;

// Where the tensors of a layer are.
struct Layout {
  int attention = 0, mlp = 0;  // tensors of each half of a layer
  int layers = 0;

  int weights() const { return attention + mlp; }
};

Status read_layout(const char* op, const DecoderLayers& args, Layout* layout) {
  if (args.inputs <= kShared) return fail(op, "got %d tensors; expected more than %d", args.inputs, kShared);
  AttentionBlock unused{};
  LayerAttributes attributes;
  VMO_TRY(read_attributes(op, args.tensors[kAttributes], args.tensors[kAttributes + 1], &unused, &attributes));
  if (attributes.first) return fail(op, "int_attributes[6] is 1; expected 0: these layers have their own first one");
  layout->attention = attention_sublayer_weights(attributes.biases);  // x and residual go, the heads' gammas come
  layout->mlp = kMlpSublayerInputs - 3;                               // x, residual and float_attributes go
  const int per_layer = layout->weights() + 2, rest = args.inputs - kShared;
  if (rest % per_layer != 0) {
    return fail(op, "got %d tensors of layers; expected a multiple of %d, the tensors of a layer and its caches", rest,
                per_layer);
  }
  layout->layers = rest / per_layer;
  return kOk;
}

// The attention half's tensors as read_attention_sublayer takes them.
Status read_attention(const char* op, const DecoderLayers& args, const Layout& layout, int layer, const TensorView& x,
                      const TensorView& residual, AttentionSublayer* half) {
  constexpr int kMost = 32;
  TensorView list[kMost];
  const TensorView* weights = args.tensors + kShared + layer * layout.weights();
  const TensorView* caches = args.tensors + kShared + layout.layers * layout.weights();
  TensorView* next = list;
  *next++ = x;
  *next++ = residual;
  next = std::copy_n(weights, layout.attention, next);
  next = std::copy_n(args.tensors + kFirstPaged, kPaged, next);
  *next++ = caches[layer];
  *next++ = caches[layout.layers + layer];
  next = std::copy_n(args.tensors + kAttributes, 2, next);
  return read_attention_sublayer(op, list, static_cast<int>(next - list), half);
}

Status read_mlp(const char* op, const DecoderLayers& args, const Layout& layout, int layer, const TensorView& x,
                const TensorView& residual, MlpSublayer* half) {
  const TensorView* weights = args.tensors + kShared + layer * layout.weights() + layout.attention;
  *half = MlpSublayer{SublayerInput{x, residual, weights[0], 0}, weights[1], weights[2], weights[3]};
  return read_epsilon(op, args.tensors[kAttributes + 1], 2, &half->in.epsilon);
}

// What passes from the attention half of a layer to its feed-forward half.
Status between(const char* op, const TensorView& x, TensorView* y, TensorView* sum) {
  VMO_TRY(require_rank(op, "x", x, 2));
  VMO_TRY(workspace(op, ScratchSlot::kHidden, x.dtype, x.shape[0], x.shape[1], x.shape[1], y));
  return workspace(op, ScratchSlot::kResidual, x.dtype, x.shape[0], x.shape[1], x.shape[1], sum);
}

}  // namespace

Status decoder_layers(const char* op, const DecoderLayers& args, const TensorView& y, const TensorView& sum) {
  Layout layout;
  VMO_TRY(read_layout(op, args, &layout));
  TensorView middle, middle_sum;
  VMO_TRY(between(op, args.tensors[0], &middle, &middle_sum));
  for (int layer = 0; layer < layout.layers; ++layer) {
    char name[64];
    std::snprintf(name, sizeof(name), "%.40s: layer %d", op, layer);
    AttentionSublayer attention{};
    VMO_TRY(read_attention(name, args, layout, layer, layer == 0 ? args.tensors[0] : y, layer == 0 ? TensorView{} : sum,
                           &attention));
    VMO_TRY(attention_sublayer(name, attention, middle, middle_sum));
    MlpSublayer mlp{};
    VMO_TRY(read_mlp(name, args, layout, layer, middle, middle_sum, &mlp));
    VMO_TRY(mlp_sublayer(name, mlp, y, sum));
  }
  return kOk;
}

Status plan_decoder_layers(const char* op, const DecoderLayers& args) {
  Layout layout;
  VMO_TRY(read_layout(op, args, &layout));
  TensorView middle, middle_sum;
  VMO_TRY(between(op, args.tensors[0], &middle, &middle_sum));
  AttentionSublayer attention{};
  VMO_TRY(read_attention(op, args, layout, 0, args.tensors[0], TensorView{}, &attention));
  VMO_TRY(plan_attention_sublayer(op, attention));
  MlpSublayer mlp{};
  VMO_TRY(read_mlp(op, args, layout, 0, middle, middle_sum, &mlp));
  return plan_mlp_sublayer(op, mlp);
}

}  // namespace vmo
