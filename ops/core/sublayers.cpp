// SPDX-License-Identifier: Apache-2.0
// attention_sublayer and mlp_sublayer.
#include "sublayers.h"

#include <algorithm>

#include "check.h"
#include "workspace.h"

namespace vmo {
namespace {

// Checks what sizes of work memory are computed from.
Status check_input(const char* op, const SublayerInput& in) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", in.x.dtype, &kernels));
  return require_rank(op, "x", in.x, 2);
}

Status add_norm(const char* op, const SublayerInput& in, const TensorView& normed, const TensorView& sum) {
  if (in.residual.data != nullptr) {
    return add_rms_norm(op, in.x, in.residual, in.gamma, in.epsilon, normed, TensorView{}, sum);
  }
  VMO_TRY(require_dtype(op, "sum", sum, in.x.dtype));
  VMO_TRY(rms_norm(op, in.x, in.gamma, in.epsilon, normed, TensorView{}));
  return copy(op, in.x, sum);
}

struct AttentionSpace {
  TensorView normed, attended;  // in the same memory, one after the other
  TensorView qkv;
};

Status attention_space(const char* op, const AttentionSublayer& args, AttentionSpace* space) {
  VMO_TRY(check_input(op, args.in));
  int64_t width = 0;
  for (const TensorView& weight : args.qkv) {
    VMO_TRY(require_rank(op, "weight", weight, 2));
    width += weight.shape[0];
  }
  VMO_TRY(require_rank(op, "output weight", args.output, 2));
  const DType dtype = args.in.x.dtype;
  const int64_t tokens = args.in.x.shape[0], hidden = args.in.x.shape[1], attended = args.output.shape[1];
  const int64_t room = std::max(hidden, attended);
  VMO_TRY(workspace(op, ScratchSlot::kNarrow, dtype, tokens, hidden, room, &space->normed));
  VMO_TRY(workspace(op, ScratchSlot::kNarrow, dtype, tokens, attended, room, &space->attended));
  return workspace(op, ScratchSlot::kWide, dtype, tokens, width, width, &space->qkv);
}

struct MlpSpace {
  TensorView normed, activated;
};

Status mlp_space(const char* op, const MlpSublayer& args, MlpSpace* space) {
  VMO_TRY(check_input(op, args.in));
  VMO_TRY(require_rank(op, "gate", args.gate, 2));
  const DType dtype = args.in.x.dtype;
  const int64_t tokens = args.in.x.shape[0], hidden = args.in.x.shape[1], inner = args.gate.shape[0];
  VMO_TRY(workspace(op, ScratchSlot::kNarrow, dtype, tokens, hidden, hidden, &space->normed));
  return workspace(op, ScratchSlot::kWide, dtype, tokens, inner, inner, &space->activated);
}

}  // namespace

Status read_epsilon(const char* op, const TensorView& floats, int64_t index, double* epsilon) {
  VMO_TRY(require_dtype(op, "float_attributes", floats, DType::kFloat32));
  VMO_TRY(require_rank(op, "float_attributes", floats, 1));
  if (floats.shape[0] <= index || !floats.is_contiguous()) {
    return fail(op, "float_attributes %s must have at least %lld adjacent elements", shape_text(floats),
                static_cast<long long>(index + 1));
  }
  *epsilon = load_unaligned<float>(static_cast<const float*>(floats.data) + index);
  return kOk;
}

Status attention_sublayer(const char* op, const AttentionSublayer& args, const TensorView& y, const TensorView& sum) {
  AttentionSpace space;
  VMO_TRY(attention_space(op, args, &space));
  VMO_TRY(add_norm(op, args.in, space.normed, sum));
  const TensorView* bias = (args.biases & kQkvBias) != 0 ? args.bias : nullptr;
  VMO_TRY(linear(op, space.normed, 3, args.qkv, bias, space.qkv));
  AttentionBlock block = args.block;
  block.qkv = space.qkv;
  VMO_TRY(attention_block(op, block, space.attended));
  const TensorView* output_bias = (args.biases & kOutputBias) != 0 ? &args.output_bias : nullptr;
  return linear(op, space.attended, 1, &args.output, output_bias, y);
}

Status mlp_sublayer(const char* op, const MlpSublayer& args, const TensorView& y, const TensorView& sum) {
  MlpSpace space;
  VMO_TRY(mlp_space(op, args, &space));
  VMO_TRY(add_norm(op, args.in, space.normed, sum));
  VMO_TRY(gate_up_swiglu(op, space.normed, args.gate, args.up, space.activated));
  return linear(op, space.activated, 1, &args.down, nullptr, y);
}

Status plan_attention_sublayer(const char* op, const AttentionSublayer& args) {
  AttentionSpace space;
  VMO_TRY(attention_space(op, args, &space));
  const int64_t tokens = space.attended.shape[0], width = space.attended.shape[1];
  TensorView query;  // of attention_block
  return workspace(op, ScratchSlot::kQuery, space.attended.dtype, tokens, width, width, &query);
}

Status plan_mlp_sublayer(const char* op, const MlpSublayer& args) {
  MlpSpace space;
  return mlp_space(op, args, &space);
}

int attention_sublayer_weights(int64_t biases) {
  constexpr int kWithoutBiases = 3 + 3 + 1;
  return kWithoutBiases + ((biases & kQkvBias) != 0 ? 3 : 0) + ((biases & kOutputBias) != 0 ? 1 : 0);
}

Status read_attention_sublayer(const char* op, const TensorView* tensors, int inputs, AttentionSublayer* args) {
  constexpr int kRest = kAttentionOut - 1;
  if (inputs < kRest) return fail(op, "got %d tensors; expected at least %d", inputs, kRest);
  TensorView block[kAttentionBlockTensors];
  std::copy_n(tensors + inputs - kRest, kRest, block + kQueryGamma);
  LayerAttributes attributes;
  VMO_TRY(read_block(op, block, &args->block, &attributes));
  const int expected = attention_sublayer_weights(attributes.biases) + kRest;
  if (inputs != expected) return fail(op, "got %d tensors; int_attributes ask for %d", inputs, expected);
  args->in = SublayerInput{tensors[0], attributes.first ? TensorView{} : tensors[1], tensors[2], 0};
  const TensorView* next = tensors + 3;
  std::copy_n(next, 3, args->qkv);
  next += 3;
  args->biases = attributes.biases;
  if ((args->biases & kQkvBias) != 0) {
    std::copy_n(next, 3, args->bias);
    next += 3;
  }
  args->output = *next++;
  if ((args->biases & kOutputBias) != 0) args->output_bias = *next;
  return read_epsilon(op, block[kFloatAttributes], 2, &args->in.epsilon);
}

Status read_mlp_sublayer(const char* op, const TensorView* tensors, MlpSublayer* args) {
  args->in = SublayerInput{tensors[0], tensors[1], tensors[2], 0};
  args->gate = tensors[3];
  args->up = tensors[4];
  args->down = tensors[5];
  return read_epsilon(op, tensors[6], 0, &args->in.epsilon);
}

}  // namespace vmo
