// SPDX-License-Identifier: Apache-2.0
// All layers of a decoder as one operation: the sublayers of sublayers.h one after the other. Between two
// kernels that run for long the framework finds its caches cold at every node (docs/architecture.md).
#pragma once

#include "sublayers.h"

namespace vmo {

// The flat tensor list: x [T, hidden], the paged inputs, int_attributes and float_attributes (those of sublayers.h; the
// last of int_attributes is a sum of OptionalTensor), then for each layer the weights of the attention half and
// those of the feed-forward half; then the key caches of all layers, then their value caches.
struct DecoderLayers {
  const TensorView* tensors;
  int inputs;  // tensors in the list
};

// y [T, hidden] = what the last layer adds to the residual, sum [T, hidden] = that residual.
Status decoder_layers(const char* op, const DecoderLayers& args, const TensorView& y, const TensorView& sum);

// Takes and records the work memory, without running anything.
Status plan_decoder_layers(const char* op, const DecoderLayers& args);

}  // namespace vmo
