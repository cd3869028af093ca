// SPDX-License-Identifier: Apache-2.0
// decoder_layers.
#include "decoder_layers.h"

#include <cstdio>

#include "check.h"
#include "workspace.h"

namespace vmo {
namespace {

// Everything but the weights, and the weights as they lie in the list.
struct Decoder {
  TensorView x;
  AttentionBlock block{};  // but for qkv, head norms and caches
  double epsilon = 0;
  int64_t optional = 0;
  TensorList weights{nullptr, 0};
  int layers = 0;
  const TensorView* caches = nullptr;
};

struct Layer {
  AttentionSublayer attention{};
  MlpSublayer mlp{};
};

Status read_layer(const char* op, const Decoder& decoder, TensorList* weights, Layer* layer) {
  layer->attention.block = decoder.block;
  layer->attention.in.epsilon = layer->mlp.in.epsilon = decoder.epsilon;
  VMO_TRY(read_attention_weights(op, weights, decoder.optional, &layer->attention));
  return read_mlp_weights(op, weights, &layer->mlp);
}

// Counts the layers: each has two caches behind the weights of all.
Status count_layers(const char* op, Decoder* decoder) {
  TensorList list = decoder->weights;
  while (list.left() > 2 * decoder->layers) {
    Layer unused;
    VMO_TRY(read_layer(op, *decoder, &list, &unused));
    ++decoder->layers;
  }
  if (list.left() == 2 * decoder->layers && decoder->layers > 0) return kOk;
  return fail(op, "the weights of %d layers leave %d tensors; expected %d caches, two for each layer", decoder->layers,
              list.left(), 2 * decoder->layers);
}

Status read_decoder(const char* op, const DecoderLayers& args, Decoder* decoder) {
  TensorList list(args.tensors, args.inputs);
  TensorView ints, floats;
  VMO_TRY(list.take(op, &decoder->x));
  VMO_TRY(read_paged_inputs(op, &list, &decoder->block));
  VMO_TRY(list.take(op, &ints));
  VMO_TRY(list.take(op, &floats));
  LayerAttributes attributes;
  VMO_TRY(read_attributes(op, ints, floats, kWholeLayer, &decoder->block, &attributes));
  if (attributes.first) return fail(op, "int_attributes[6] is 1; expected 0: these layers have their own first one");
  VMO_TRY(read_epsilon(op, floats, 2, &decoder->epsilon));
  decoder->optional = attributes.optional;
  decoder->weights = list;
  VMO_TRY(count_layers(op, decoder));
  decoder->caches = args.tensors + args.inputs - 2 * decoder->layers;
  return kOk;
}

// What passes from the attention half of a layer to its feed-forward half.
Status between(const char* op, const TensorView& x, TensorView* y, TensorView* sum) {
  VMO_TRY(require_rank(op, "x", x, 2));
  VMO_TRY(workspace(op, ScratchSlot::kHidden, x.dtype, x.shape[0], x.shape[1], x.shape[1], y));
  return workspace(op, ScratchSlot::kResidual, x.dtype, x.shape[0], x.shape[1], x.shape[1], sum);
}

}  // namespace

Status decoder_layers(const char* op, const DecoderLayers& args, const TensorView& y, const TensorView& sum) {
  Decoder decoder;
  VMO_TRY(read_decoder(op, args, &decoder));
  TensorView middle, middle_sum;
  VMO_TRY(between(op, decoder.x, &middle, &middle_sum));
  TensorList weights = decoder.weights;
  for (int i = 0; i < decoder.layers; ++i) {
    char name[64];
    std::snprintf(name, sizeof(name), "%.40s: layer %d", op, i);
    Layer layer;
    VMO_TRY(read_layer(name, decoder, &weights, &layer));
    layer.attention.in.x = i == 0 ? decoder.x : y;
    layer.attention.in.residual = i == 0 ? TensorView{} : sum;
    layer.attention.block.key_cache = decoder.caches[i];
    layer.attention.block.value_cache = decoder.caches[decoder.layers + i];
    VMO_TRY(attention_sublayer(name, layer.attention, middle, middle_sum));
    layer.mlp.in.x = middle;
    layer.mlp.in.residual = middle_sum;
    VMO_TRY(mlp_sublayer(name, layer.mlp, y, sum));
  }
  return kOk;
}

Status plan_decoder_layers(const char* op, const DecoderLayers& args) {
  Decoder decoder;
  VMO_TRY(read_decoder(op, args, &decoder));
  TensorView middle, middle_sum;
  VMO_TRY(between(op, decoder.x, &middle, &middle_sum));
  TensorList weights = decoder.weights;
  for (int i = 0; i < decoder.layers; ++i) {  // layers differ where only some are quantized
    Layer layer;
    VMO_TRY(read_layer(op, decoder, &weights, &layer));
    layer.attention.in.x = decoder.x;
    layer.mlp.in.x = middle;
    VMO_TRY(plan_attention_sublayer(op, layer.attention));
    VMO_TRY(plan_mlp_sublayer(op, layer.mlp));
  }
  return kOk;
}

}  // namespace vmo
