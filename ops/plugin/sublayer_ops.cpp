// SPDX-License-Identifier: Apache-2.0
// ops.Custom kernels of the two halves of a decoder layer and of all layers together. Their tensors in call order:
// core/sublayers.h, core/decoder_layers.h; the last two are the outputs.
#include "core/sublayers.h"

#include <vector>

#include "arguments.h"
#include "core/check.h"
#include "core/decoder_layers.h"

namespace vmo::plugin {
namespace {

// The tensors of a call.
struct Call {
  std::vector<TensorView> inputs;
  TensorView y, sum;

  int count() const { return static_cast<int>(inputs.size()); }
};

// Input 0 tells the dtype of those of the others that are weights.
Status read(const Arguments& args, Call* call) {
  VMO_TRY(args.require_count(3));
  call->inputs.resize(static_cast<size_t>(args.count() - 2));
  VMO_TRY(args.input(0, &call->inputs[0]));
  const DType dtype = call->inputs[0].dtype;
  for (int i = 1; i < call->count(); ++i) VMO_TRY(args.weight(i, dtype, &call->inputs[static_cast<size_t>(i)]));
  VMO_TRY(args.output(2, &call->y));
  return args.output(1, &call->sum);
}

template <bool kPlanOnly>
Status run_attention(const Arguments& args) {
  Call call;
  VMO_TRY(read(args, &call));
  AttentionSublayer sublayer{};
  VMO_TRY(read_attention_sublayer(args.op(), call.inputs.data(), call.count(), &sublayer));
  if (kPlanOnly) return plan_attention_sublayer(args.op(), sublayer);
  return attention_sublayer(args.op(), sublayer, call.y, call.sum);
}

template <bool kPlanOnly>
Status run_mlp(const Arguments& args) {
  Call call;
  VMO_TRY(read(args, &call));
  MlpSublayer sublayer{};
  VMO_TRY(read_mlp_sublayer(args.op(), call.inputs.data(), call.count(), &sublayer));
  if (kPlanOnly) return plan_mlp_sublayer(args.op(), sublayer);
  return mlp_sublayer(args.op(), sublayer, call.y, call.sum);
}

template <bool kPlanOnly>
Status run_decoder(const Arguments& args) {
  Call call;
  VMO_TRY(read(args, &call));
  const DecoderLayers decoder{call.inputs.data(), call.count()};
  if (kPlanOnly) return plan_decoder_layers(args.op(), decoder);
  return decoder_layers(args.op(), decoder, call.y, call.sum);
}

}  // namespace
}  // namespace vmo::plugin

VMO_DEFINE_SUBLAYER(vmo_attention_sublayer, vmo::plugin::run_attention<false>, vmo::plugin::run_attention<true>)
VMO_DEFINE_SUBLAYER(vmo_mlp_sublayer, vmo::plugin::run_mlp<false>, vmo::plugin::run_mlp<true>)
VMO_DEFINE_SUBLAYER(vmo_decoder_layers, vmo::plugin::run_decoder<false>, vmo::plugin::run_decoder<true>)
