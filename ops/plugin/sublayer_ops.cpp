// SPDX-License-Identifier: Apache-2.0
// ops.Custom kernels of the two halves of a decoder layer. Their tensors in call order: core/sublayers.h; the last two
// are the outputs.
#include "core/sublayers.h"

#include "arguments.h"
#include "core/check.h"

namespace vmo::plugin {
namespace {

constexpr int kMostInputs = 32;

// Input 0 tells the dtype of those of the others that are weights.
Status read(const Arguments& args, int inputs, TensorView* tensors, TensorView* y, TensorView* sum) {
  if (args.count() != inputs + 2) {
    return fail(args.op(), "got %d arguments; this name takes %d inputs and two outputs", args.count(), inputs);
  }
  VMO_TRY(args.input(0, &tensors[0]));
  for (int i = 1; i < inputs; ++i) VMO_TRY(args.weight(i, tensors[0].dtype, &tensors[i]));
  VMO_TRY(args.output(2, y));
  return args.output(1, sum);
}

template <int kBiases, bool kPlanOnly>
Status run_attention(const Arguments& args) {
  TensorView tensors[kMostInputs], y, sum;
  VMO_TRY(read(args, attention_sublayer_inputs(kBiases), tensors, &y, &sum));
  AttentionSublayer sublayer{};
  VMO_TRY(read_attention_sublayer(args.op(), tensors, kBiases, &sublayer));
  if (kPlanOnly) return plan_attention_sublayer(args.op(), sublayer);
  return attention_sublayer(args.op(), sublayer, y, sum);
}

template <bool kPlanOnly>
Status run_mlp(const Arguments& args) {
  TensorView tensors[kMlpSublayerInputs], y, sum;
  VMO_TRY(read(args, kMlpSublayerInputs, tensors, &y, &sum));
  MlpSublayer sublayer{};
  VMO_TRY(read_mlp_sublayer(args.op(), tensors, &sublayer));
  if (kPlanOnly) return plan_mlp_sublayer(args.op(), sublayer);
  return mlp_sublayer(args.op(), sublayer, y, sum);
}

}  // namespace
}  // namespace vmo::plugin

#define VMO_DEFINE_ATTENTION_SUBLAYER(name, biases) \
  VMO_DEFINE_SUBLAYER(name, (vmo::plugin::run_attention<biases, false>), (vmo::plugin::run_attention<biases, true>))

VMO_DEFINE_ATTENTION_SUBLAYER(vmo_attention_sublayer, vmo::kNoBias)
VMO_DEFINE_ATTENTION_SUBLAYER(vmo_attention_sublayer_qkv_bias, vmo::kQkvBias)
VMO_DEFINE_ATTENTION_SUBLAYER(vmo_attention_sublayer_output_bias, vmo::kOutputBias)
VMO_DEFINE_ATTENTION_SUBLAYER(vmo_attention_sublayer_biases, (vmo::kQkvBias | vmo::kOutputBias))
VMO_DEFINE_SUBLAYER(vmo_mlp_sublayer, vmo::plugin::run_mlp<false>, vmo::plugin::run_mlp<true>)
