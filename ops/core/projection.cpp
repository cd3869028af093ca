// SPDX-License-Identifier: Apache-2.0
// Projections of floats and quantized ones.
#include "projection.h"

#include "check.h"
#include "workspace.h"

namespace vmo {
namespace {

// int8 codes [rows, K] and the scale of each row, the latter null unless they are quantized per token.
struct CodeSpace {
  TensorView codes, token_scale;
};

Status code_space(const char* op, const Projection& projection, int64_t rows, CodeSpace* space) {
  const int64_t inner = projection.inner;
  VMO_TRY(workspace(op, ScratchSlot::kCodes, DType::kInt8, rows, inner, inner, &space->codes));
  if (projection.kind != ProjectionKind::kPerToken) return kOk;
  VMO_TRY(workspace(op, ScratchSlot::kTokenScales, DType::kFloat32, rows, 1, 1, &space->token_scale));
  space->token_scale.ndim = 1;
  return kOk;
}

// `rows`: of x.
Status project_codes(const char* op, const Projection& projection, const TensorView& x, int64_t rows,
                     const TensorView& y) {
  CodeSpace space;
  VMO_TRY(code_space(op, projection, rows, &space));
  const TensorView codes = contiguous_view(space.codes.data, DType::kInt8, x.ndim, x.shape);
  VMO_TRY(quantize(op, x, projection.codes, codes, space.token_scale));
  return int8_linear(op, codes, space.token_scale, projection.weights, projection.w, y);
}

Status project_floats(const char* op, const Projection& projection, const TensorView& x, const TensorView& y) {
  CodedWeight weights[kMaxWeights];
  for (int i = 0; i < projection.weights; ++i) {
    const Int8Weight& w = projection.w[i];
    weights[i] = {w.weight, w.scale, projection.offsets[i], w.bias};
  }
  const bool int4 = projection.kind == ProjectionKind::kWeightInt4;
  return weight_only_linear(op, x, int4 ? WeightCodes::kInt4 : WeightCodes::kInt8, projection.group,
                            projection.weights, weights, y);
}

Status check_rows(const char* op, const Projection& projection, const TensorView& x, int64_t* rows) {
  int64_t columns = 0;
  VMO_TRY(row_extents(op, "x", x, rows, &columns));
  if (columns == projection.inner) return kOk;
  return fail(op, "argument x has shape %s; expected rows of %lld elements", shape_text(x),
              static_cast<long long>(projection.inner));
}

Status project_quantized(const char* op, const Projection& projection, const TensorView& x, const TensorView& y) {
  int64_t rows = 0;
  VMO_TRY(check_rows(op, projection, x, &rows));
  if (projection.weight_only()) return project_floats(op, projection, x, y);
  return project_codes(op, projection, x, rows, y);
}

// Group size and offsets.
Status read_group(const char* op, const TensorView& descriptor, Projection* out) {
  out->group = index_at(descriptor, kDescriptorGroup);
  const int64_t offsets = index_at(descriptor, kDescriptorOffsets);
  out->has_offsets = offsets == 1;
  const bool possible = out->weight_only() ? out->group >= 0 && (offsets == 0 || offsets == 1)
                                           : out->group == 0 && offsets == 0;
  if (possible) return kOk;
  return fail(op, "the descriptor of a projection of kind %d has groups of %lld and offsets %lld",
              static_cast<int>(out->kind), static_cast<long long>(out->group), static_cast<long long>(offsets));
}

// How many weights there are, and that they are compressed, if they are.
Status read_coding(const char* op, const TensorView& descriptor, Projection* out) {
  const int64_t given = descriptor.shape[0] - kDescriptorElements;
  if (given == 0) return kOk;
  if (given > out->weights) {
    return fail(op, "the descriptor of a projection has %lld compressed weights; expected 1 to %d",
                static_cast<long long>(given), out->weights);
  }
  for (int64_t i = 0; i < given; ++i) {
    const int64_t coding = index_at(descriptor, kDescriptorElements + i);
    if (coding == static_cast<int64_t>(WeightCoding::kTileBitmap)) continue;
    return fail(op, "the descriptor of a projection has the unknown coding %lld of weights; expected 1 (tile-bitmap)",
                static_cast<long long>(coding));
  }
  out->weights = static_cast<int>(given);
  out->compressed = true;
  return out->weight_only() ? fail(op, "a projection of kind %d has compressed weights", static_cast<int>(out->kind)) : kOk;
}

Status read_descriptor(const char* op, const TensorView& descriptor, Projection* out) {
  const bool longer = descriptor.ndim == 1 && descriptor.shape[0] > kDescriptorElements;
  const int64_t elements = longer ? descriptor.shape[0] : int64_t{kDescriptorElements};
  VMO_TRY(require_vector(op, "descriptor", descriptor, DType::kInt32, elements));
  const int64_t kind = index_at(descriptor, kDescriptorKind);
  if (kind < 0 || kind > static_cast<int64_t>(ProjectionKind::kWeightInt4)) {
    return fail(op, "the descriptor of a projection has the unknown kind %lld", static_cast<long long>(kind));
  }
  out->kind = static_cast<ProjectionKind>(kind);
  out->inner = index_at(descriptor, kDescriptorInner);
  if (out->inner > 0) {
    VMO_TRY(read_coding(op, descriptor, out));
    return read_group(op, descriptor, out);
  }
  return fail(op, "the descriptor of a projection has %lld inputs; expected at least 1",
              static_cast<long long>(out->inner));
}

// Extent of the rows of weights.
int64_t row_extent(const Projection& projection) {
  if (projection.kind == ProjectionKind::kWeightInt4) return int4_row_bytes(projection.inner);
  return projection.quantized() ? projection.inner : kAny;
}

Status read_weights(const char* op, const char* name, TensorList* list, bool biased, Projection* out) {
  for (int i = 0; i < out->weights; ++i) {
    VMO_TRY(list->take(op, &out->w[i].weight));
    if (out->compressed) {
      VMO_TRY(require_rank(op, name, out->w[i].weight, 1));
    } else {
      VMO_TRY(require_shape(op, name, out->w[i].weight, {kAny, row_extent(*out)}));
    }
  }
  for (int i = 0; out->compressed && i < out->weights; ++i) VMO_TRY(list->take(op, &out->w[i].index));
  for (int i = 0; biased && i < out->weights; ++i) VMO_TRY(list->take(op, &out->w[i].bias));
  return kOk;
}

Status read_scales(const char* op, TensorList* list, Projection* out) {
  for (int i = 0; i < out->weights; ++i) {
    VMO_TRY(list->take(op, &out->w[i].scale));
    if (out->compressed) VMO_TRY(require_rank(op, "scale", out->w[i].scale, 1));
  }
  for (int i = 0; out->has_offsets && i < out->weights; ++i) VMO_TRY(list->take(op, &out->offsets[i]));
  if (out->weight_only()) return kOk;
  ActivationCodes& codes = out->codes;
  codes.kind = static_cast<CodeKind>(out->kind);
  if (out->kind == ProjectionKind::kPerToken) return list->take(op, &codes.scale);
  for (int i = 0; i < out->weights; ++i) VMO_TRY(list->take(op, &out->w[i].quant_bias));
  VMO_TRY(list->take(op, &codes.scale));
  return list->take(op, &codes.offset);
}

}  // namespace

Status TensorList::take(const char* op, TensorView* out) {
  if (left_ <= 0) return fail(op, "the list of tensors ends too early");
  *out = *next_++;
  --left_;
  return kOk;
}

Status read_projection(const char* op, const char* name, TensorList* list, int weights, bool biased, Projection* out) {
  *out = Projection{};
  out->weights = weights;
  if (list->peek().dtype == DType::kInt32) {
    TensorView descriptor;
    VMO_TRY(list->take(op, &descriptor));
    VMO_TRY(read_descriptor(op, descriptor, out));
  }
  VMO_TRY(read_weights(op, name, list, biased, out));
  if (out->quantized()) return read_scales(op, list, out);
  out->inner = out->w[0].weight.shape[1];
  return kOk;
}

int64_t outputs_of(const Projection& projection, int weight) {
  const Int8Weight& w = projection.w[weight];
  return projection.compressed ? w.scale.shape[0] : w.weight.shape[0];
}

int64_t width_of(const Projection& projection) {
  int64_t width = 0;
  for (int i = 0; i < projection.weights; ++i) width += outputs_of(projection, i);
  return width;
}

Status project(const char* op, const Projection& projection, const TensorView& x, const TensorView& y) {
  if (projection.quantized()) return project_quantized(op, projection, x, y);
  TensorView weights[kMaxWeights], biases[kMaxWeights];
  for (int i = 0; i < projection.weights; ++i) {
    weights[i] = projection.w[i].weight;
    biases[i] = projection.w[i].bias;
  }
  const bool biased = biases[0].data != nullptr;
  return linear(op, x, projection.weights, weights, biased ? biases : nullptr, y);
}

Status project_normed(const char* op, const Projection& projection, const TensorView& x, const TensorView& residual,
                      const TensorView& gamma, double epsilon, const TensorView& sum, const TensorView& y) {
  int64_t rows = 0;
  CodeSpace space;
  VMO_TRY(check_rows(op, projection, x, &rows));
  VMO_TRY(code_space(op, projection, rows, &space));
  VMO_TRY(norm_codes(op, x, residual, gamma, epsilon, projection.codes, space.codes, space.token_scale, sum));
  return int8_linear(op, space.codes, space.token_scale, projection.weights, projection.w, y);
}

Status lm_head(const char* op, const TensorView& hidden, const TensorView& rows, const Projection& head,
               const TensorView& y) {
  VMO_TRY(require_rank(op, "hidden", hidden, 2));
  VMO_TRY(require_rank(op, "rows", rows, 1));
  VMO_TRY(require_dtype(op, "y", y, DType::kFloat32));
  const int64_t shape[2] = {rows.shape[0], hidden.shape[1]};
  const size_t bytes = static_cast<size_t>(shape[0] * shape[1]) * size_of(hidden.dtype);
  const TensorView picked = contiguous_view(scratch(ScratchSlot::kGather, bytes), hidden.dtype, 2, shape);
  VMO_TRY(gather(op, hidden, rows, 0, 0, picked));
  return project(op, head, picked, y);
}

Status plan_projection(const char* op, const Projection& projection, int64_t rows) {
  CodeSpace space;
  return projection.quantized() && !projection.weight_only() ? code_space(op, projection, rows, &space) : kOk;
}

}  // namespace vmo
