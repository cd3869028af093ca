// SPDX-License-Identifier: Apache-2.0
// attention_sublayer and mlp_sublayer.
#include "sublayers.h"

#include <algorithm>

#include "check.h"
#include "collectives/collectives.h"
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

// y = the projection of the normed input, which is written to `normed` unless it is quantized.
Status norm_and_project(const char* op, const SublayerInput& in, const Projection& projection, const TensorView& normed,
                        const TensorView& sum, const TensorView& y) {
  if (!projection.int8_inputs()) {
    VMO_TRY(add_norm(op, in, normed, sum));
    return project(op, projection, normed, y);
  }
  if (in.residual.data == nullptr) VMO_TRY(require_dtype(op, "sum", sum, in.x.dtype));
  VMO_TRY(project_normed(op, projection, in.x, in.residual, in.gamma, in.epsilon, sum, y));
  return in.residual.data == nullptr ? copy(op, in.x, sum) : kOk;
}

// y = the projection of x, added up over all ranks; the part of this rank goes where the others read it.
Status project_and_reduce(const char* op, const Projection& projection, const TensorView& x, const TensorView& y) {
  if (group_count() == 1) return project(op, projection, x, y);
  TensorView part = y;
  char* shared = nullptr;
  VMO_TRY(partial_sums(op, y.bytes(), &shared));
  if (shared == nullptr) {
    VMO_TRY(project(op, projection, x, y));
    return all_reduce(op, y, y);
  }
  part.data = shared;
  VMO_TRY(project(op, projection, x, part));
  return all_reduce_partial(op, y);
}

struct AttentionSpace {
  TensorView normed, attended;  // in the same memory, one after the other
  TensorView qkv;
};

Status attention_space(const char* op, const AttentionSublayer& args, AttentionSpace* space) {
  VMO_TRY(check_input(op, args.in));
  const DType dtype = args.in.x.dtype;
  const int64_t tokens = args.in.x.shape[0], hidden = args.in.x.shape[1], width = width_of(args.qkv);
  const int64_t attended = args.output.inner, room = std::max(hidden, attended);
  VMO_TRY(workspace(op, ScratchSlot::kNarrow, dtype, tokens, hidden, room, &space->normed));
  VMO_TRY(workspace(op, ScratchSlot::kNarrow, dtype, tokens, attended, room, &space->attended));
  return workspace(op, ScratchSlot::kWide, dtype, tokens, width, width, &space->qkv);
}

struct MlpSpace {
  TensorView normed, activated;
  TensorView gate_up;  // of quantized projections
};

// Half of the outputs: two weights have as many, one holds both halves.
Status activated_width(const char* op, const Projection& gate_up, int64_t* out) {
  const int64_t width = width_of(gate_up);
  *out = width / 2;
  if (width % 2 == 0 && (gate_up.weights == 1 || outputs_of(gate_up, 0) == width / 2)) return kOk;
  return fail(op, "gate and up have %lld outputs together; expected as many of each", static_cast<long long>(width));
}

Status mlp_space(const char* op, const MlpSublayer& args, MlpSpace* space) {
  VMO_TRY(check_input(op, args.in));
  const DType dtype = args.in.x.dtype;
  const int64_t tokens = args.in.x.shape[0], hidden = args.in.x.shape[1];
  int64_t inner = 0;
  VMO_TRY(activated_width(op, args.gate_up, &inner));
  VMO_TRY(workspace(op, ScratchSlot::kNarrow, dtype, tokens, hidden, hidden, &space->normed));
  VMO_TRY(workspace(op, ScratchSlot::kWide, dtype, tokens, inner, inner, &space->activated));
  if (!args.gate_up.quantized()) return kOk;
  const int64_t width = width_of(args.gate_up);
  return workspace(op, ScratchSlot::kGateUp, dtype, tokens, width, width, &space->gate_up);
}

Status activate(const char* op, const MlpSublayer& args, const MlpSpace& space, const TensorView& sum) {
  const Projection& gate_up = args.gate_up;
  if (!gate_up.quantized()) {
    VMO_TRY(add_norm(op, args.in, space.normed, sum));
    return gate_up_swiglu(op, space.normed, gate_up.w[0].weight, gate_up.w[1].weight, space.activated);
  }
  VMO_TRY(norm_and_project(op, args.in, gate_up, space.normed, sum, space.gate_up));
  return swiglu(op, space.gate_up, -1, space.activated);
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
  VMO_TRY(norm_and_project(op, args.in, args.qkv, space.normed, sum, space.qkv));
  AttentionBlock block = args.block;
  block.qkv = space.qkv;
  VMO_TRY(attention_block(op, block, space.attended));
  return project_and_reduce(op, args.output, space.attended, y);
}

Status mlp_sublayer(const char* op, const MlpSublayer& args, const TensorView& y, const TensorView& sum) {
  MlpSpace space;
  VMO_TRY(mlp_space(op, args, &space));
  VMO_TRY(activate(op, args, space, sum));
  return project_and_reduce(op, args.down, space.activated, y);
}

Status plan_attention_sublayer(const char* op, const AttentionSublayer& args) {
  AttentionSpace space;
  VMO_TRY(attention_space(op, args, &space));
  const int64_t tokens = space.attended.shape[0], width = space.attended.shape[1];
  VMO_TRY(plan_projection(op, args.qkv, tokens));
  VMO_TRY(plan_projection(op, args.output, tokens));
  TensorView query;  // of attention_block
  return workspace(op, ScratchSlot::kQuery, space.attended.dtype, tokens, width, width, &query);
}

Status plan_mlp_sublayer(const char* op, const MlpSublayer& args) {
  MlpSpace space;
  VMO_TRY(mlp_space(op, args, &space));
  VMO_TRY(plan_projection(op, args.gate_up, space.normed.shape[0]));
  return plan_projection(op, args.down, space.normed.shape[0]);
}

Status read_attention_weights(const char* op, TensorList* list, int64_t optional, AttentionSublayer* args) {
  VMO_TRY(list->take(op, &args->in.gamma));
  VMO_TRY(read_projection(op, "qkv weight", list, 3, (optional & kQkvBias) != 0, &args->qkv));
  VMO_TRY(read_projection(op, "output weight", list, 1, (optional & kOutputBias) != 0, &args->output));
  VMO_TRY(list->take(op, &args->block.query_gamma));
  VMO_TRY(list->take(op, &args->block.key_gamma));
  return (optional & kInt8CacheScales) == 0 ? kOk : list->take(op, &args->block.cache_scales);
}

Status read_mlp_weights(const char* op, TensorList* list, MlpSublayer* args) {
  VMO_TRY(list->take(op, &args->in.gamma));
  VMO_TRY(read_projection(op, "gate or up weight", list, 2, false, &args->gate_up));
  return read_projection(op, "down weight", list, 1, false, &args->down);
}

Status read_paged_inputs(const char* op, TensorList* list, AttentionBlock* block) {
  VMO_TRY(list->take(op, &block->cos));
  VMO_TRY(list->take(op, &block->sin));
  VMO_TRY(list->take(op, &block->slot_mapping));
  VMO_TRY(list->take(op, &block->sequences.block_tables));
  VMO_TRY(list->take(op, &block->sequences.context_lens));
  return list->take(op, &block->sequences.query_lens);
}

Status read_attention_sublayer(const char* op, const TensorView* tensors, int inputs, AttentionSublayer* args) {
  constexpr int kAttributes = 2;
  if (inputs < kAttributes) return fail(op, "got %d tensors; expected more", inputs);
  const TensorView& floats = tensors[inputs - 1];
  LayerAttributes attributes;
  VMO_TRY(read_attributes(op, tensors[inputs - 2], floats, kWholeLayer, &args->block, &attributes));
  VMO_TRY(read_epsilon(op, floats, 2, &args->in.epsilon));
  TensorList list(tensors, inputs - kAttributes);
  VMO_TRY(list.take(op, &args->in.x));
  VMO_TRY(list.take(op, &args->in.residual));
  if (attributes.first) args->in.residual = TensorView{};
  VMO_TRY(read_attention_weights(op, &list, attributes.optional, args));
  VMO_TRY(read_paged_inputs(op, &list, &args->block));
  VMO_TRY(list.take(op, &args->block.key_cache));
  VMO_TRY(list.take(op, &args->block.value_cache));
  return list.left() == 0 ? kOk : fail(op, "got %d tensors more than int_attributes ask for", list.left());
}

Status read_mlp_sublayer(const char* op, const TensorView* tensors, int inputs, MlpSublayer* args) {
  TensorList list(tensors, inputs);
  VMO_TRY(list.take(op, &args->in.x));
  VMO_TRY(list.take(op, &args->in.residual));
  VMO_TRY(read_mlp_weights(op, &list, args));
  TensorView floats;
  VMO_TRY(list.take(op, &floats));
  if (list.left() != 0) return fail(op, "got %d tensors too many", list.left());
  return read_epsilon(op, floats, 0, &args->in.epsilon);
}

}  // namespace vmo
