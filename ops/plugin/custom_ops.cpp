// SPDX-License-Identifier: Apache-2.0
// Kernels of ops.Custom (func_type="aot"): fused nodes and float32 attention, which no builtin primitive offers.
// The comment of each gives its tensors in call order; the last argument is the output.
#include <algorithm>
#include <vector>

#include "arguments.h"
#include "core/attention_attributes.h"
#include "core/check.h"
#include "core/projection.h"
#include "vmo/core.h"
#include "vmo/kernel_table.h"

namespace vmo::plugin {
namespace {

Status inputs(const Arguments& args, int count, TensorView* out) {
  VMO_TRY(args.require_count(count + 1));
  for (int i = 0; i < count; ++i) VMO_TRY(args.input(i, &out[i]));
  return kOk;
}

// Input 0 as it is, the others as weights for it.
Status weighted_inputs(const Arguments& args, int count, TensorView* out) {
  VMO_TRY(args.require_count(count + 1));
  VMO_TRY(args.input(0, &out[0]));
  for (int i = 1; i < count; ++i) VMO_TRY(args.weight(i, out[0].dtype, &out[i]));
  return kOk;
}

// A projection from input `first` to the last one; the tensors stay in `tensors`.
Status read_weights(const Arguments& args, int first, DType dtype, int weights, bool biased,
                    std::vector<TensorView>* tensors, Projection* out) {
  const int count = args.count() - 1 - first;
  tensors->resize(static_cast<size_t>(std::max(count, 0)));
  for (int i = 0; i < count; ++i) VMO_TRY(args.weight(first + i, dtype, &(*tensors)[static_cast<size_t>(i)]));
  TensorList list(tensors->data(), count);
  VMO_TRY(read_projection(args.op(), "w", &list, weights, biased, out));
  if (list.left() == 0) return kOk;
  return fail(args.op(),
              "got %d inputs, %d too many; this name takes x and %d weights%s. One to three weights: vmo_linear_1, "
              "vmo_linear_2, vmo_linear_3; with biases vmo_linear_bias_1, vmo_linear_bias_2, vmo_linear_bias_3",
              args.count() - 1, list.left(), weights, biased ? " with biases" : "");
}

// x [..., K], then a projection (core/projection.h) of kWeights weights -> y [..., sum of N]
template <int kWeights, bool kBias>
Status run_linear(const Arguments& args) {
  TensorView x, y;
  std::vector<TensorView> tensors;
  Projection projection;
  VMO_TRY(args.require_count(3));
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.output(1, &y));
  VMO_TRY(read_weights(args, 1, x.dtype, kWeights, kBias, &tensors, &projection));
  return project(args.op(), projection, x, y);
}

// x [..., K], gate [I, K], up [I, K] -> y [..., I]
Status run_gate_up_swiglu(const Arguments& args) {
  TensorView in[3], y;
  VMO_TRY(weighted_inputs(args, 3, in));
  VMO_TRY(args.output(1, &y));
  return gate_up_swiglu(args.op(), in[0], in[1], in[2], y);
}

// y [T, sum of N], x [T, K], slots int32 [T], a [S, kParts * R, K], then kParts times b [N, S, R] -> out [T, sum of N]
template <int kParts>
Status run_lora(const Arguments& args) {
  constexpr int kFirstB = 4;
  TensorView in[kFirstB + kParts], out;
  VMO_TRY(inputs(args, kFirstB + kParts, in));
  VMO_TRY(args.output(1, &out));
  return lora(args.op(), in[0], in[1], in[2], in[3], kParts, in + kFirstB, out);
}

// hidden [T, K], rows int32 [R], then a projection of one weight [V, K] -> y float32 [R, V]
Status run_lm_head(const Arguments& args) {
  TensorView hidden, rows, y;
  std::vector<TensorView> tensors;
  Projection head;
  VMO_TRY(args.require_count(4));
  VMO_TRY(args.input(0, &hidden));
  VMO_TRY(args.input(1, &rows));
  VMO_TRY(args.output(1, &y));
  VMO_TRY(read_weights(args, 2, hidden.dtype, 1, false, &tensors, &head));
  return lm_head(args.op(), hidden, rows, head, y);
}

// weight [V, K], ids int32 [T], any tensor of the result's dtype -> y [T, K]
Status run_embedding(const Arguments& args) {
  TensorView weight, ids, y;
  VMO_TRY(args.require_count(4));
  VMO_TRY(args.output(1, &y));
  VMO_TRY(args.weight(0, y.dtype, &weight));
  VMO_TRY(args.input(1, &ids));
  return gather(args.op(), weight, ids, 0, 0, y);
}

// key, value, key_cache, value_cache, slot_mapping -> int32 [1] that is always 0 (its readers only need an order)
Status run_reshape_and_cache(const Arguments& args) {
  TensorView in[5], y;
  VMO_TRY(inputs(args, 5, in));
  VMO_TRY(args.output(1, &y));
  VMO_TRY(require_dtype(args.op(), "y", y, DType::kInt32));
  VMO_TRY(require_output(args.op(), "y", y, 1));
  VMO_TRY(reshape_and_cache(args.op(), in[0], in[1], in[2], in[3], in[4]));
  store_unaligned<int32_t>(y.data, 0);
  return kOk;
}

// query [T, H * D], key_cache, value_cache [NB, BS, KH, D], block_tables, context_lens, q_seq_lens,
// int_attributes, float_attributes (those of vmo_attention_block; only heads, kv_heads and scale are used) -> [T, H * D]
Status run_paged_attention(const Arguments& args) {
  TensorView in[8], y;
  VMO_TRY(inputs(args, 8, in));
  VMO_TRY(args.output(1, &y));
  AttentionBlock attributes{};
  LayerAttributes layer;
  VMO_TRY(read_attributes(args.op(), in[6], in[7], kNoLayer, &attributes, &layer));
  return paged_attention(args.op(), in[0], in[1], in[2], PagedSequences{in[3], in[4], in[5]}, attributes.heads,
                         attributes.kv_heads, attributes.scale, y);
}

// The tensors of AttentionBlockTensor (core/attention_attributes.h) in that order.
Status run_attention_block(const Arguments& args) {
  TensorView tensors[kAttentionBlockTensors], out;
  VMO_TRY(args.require_count(kCacheScales + 1));
  const int inputs = std::min<int>(args.count() - 1, kAttentionBlockTensors);
  VMO_TRY(weighted_inputs(args, inputs, tensors));
  VMO_TRY(args.output(1, &out));
  return attention_block_from(args.op(), tensors, inputs, out);
}

}  // namespace
}  // namespace vmo::plugin

VMO_DEFINE_KERNEL(vmo_linear_1, (vmo::plugin::run_linear<1, false>))
VMO_DEFINE_KERNEL(vmo_linear_2, (vmo::plugin::run_linear<2, false>))
VMO_DEFINE_KERNEL(vmo_linear_3, (vmo::plugin::run_linear<3, false>))
VMO_DEFINE_KERNEL(vmo_linear_bias_1, (vmo::plugin::run_linear<1, true>))
VMO_DEFINE_KERNEL(vmo_linear_bias_2, (vmo::plugin::run_linear<2, true>))
VMO_DEFINE_KERNEL(vmo_linear_bias_3, (vmo::plugin::run_linear<3, true>))
VMO_DEFINE_KERNEL(vmo_gate_up_swiglu, vmo::plugin::run_gate_up_swiglu)
VMO_DEFINE_KERNEL(vmo_lora_1, vmo::plugin::run_lora<1>)
VMO_DEFINE_KERNEL(vmo_lora_2, vmo::plugin::run_lora<2>)
VMO_DEFINE_KERNEL(vmo_lora_3, vmo::plugin::run_lora<3>)
VMO_DEFINE_KERNEL(vmo_lm_head, vmo::plugin::run_lm_head)
VMO_DEFINE_KERNEL(vmo_embedding, vmo::plugin::run_embedding)
VMO_DEFINE_KERNEL(vmo_reshape_and_cache, vmo::plugin::run_reshape_and_cache)
VMO_DEFINE_KERNEL(vmo_paged_attention, vmo::plugin::run_paged_attention)
VMO_DEFINE_KERNEL(vmo_attention_block, vmo::plugin::run_attention_block)
