// SPDX-License-Identifier: Apache-2.0
// Shape and type inference of the ops.Custom kernels, found by MindSpore as <kernel>InferShape and <kernel>InferType.
//
// An extent may be -1 (not known before the call) and a whole shape {-2} (not even its rank); both pass through.
// std::vector<int64_t> and std::vector<TypeId> have one layout under both string ABIs. MindSpore passes the shapes
// without their number: a kernel that takes one to three weights has one name per number.
#include <cstdint>
#include <vector>

#include "vmo/api.h"

// MindSpore's own names, declared so that the functions can be written; only their binary form counts.
namespace mindspore {
enum TypeId : int {};
class AotExtra;
}  // namespace mindspore

namespace {

using Shape = std::vector<int64_t>;
using Types = std::vector<mindspore::TypeId>;

constexpr int64_t kUnknownExtent = -1, kUnknownRank = -2;
constexpr auto kInt32 = static_cast<mindspore::TypeId>(34);
constexpr auto kFloat32 = static_cast<mindspore::TypeId>(43);

bool unknown_rank(int rank, const int64_t* shape) { return rank == 1 && shape[0] == kUnknownRank; }

Shape copy_shape(int rank, const int64_t* shape) { return Shape(shape, shape + rank); }

// First extent of a weight, kUnknownExtent when not known.
int64_t rows_of(int rank, const int64_t* shape) {
  return rank < 1 || unknown_rank(rank, shape) ? kUnknownExtent : shape[0];
}

// Shape of x with its last axis replaced.
Shape with_last(int rank, const int64_t* shape, int64_t last) {
  Shape result = copy_shape(rank, shape);
  if (!unknown_rank(rank, shape) && rank > 0) result.back() = last;
  return result;
}

// Where the weights of a projection begin that is the tensors from `first` on: a quantized one has a descriptor in front
// (core/projection.h), which is a vector.
int first_weight(int first, const int* ndims, int64_t** shapes) {
  return ndims[first] == 1 && !unknown_rank(ndims[first], shapes[first]) ? first + 1 : first;
}

// Outputs of a projection of `weights` weights that the tensors from `first` on are. Compressed weights are vectors that do not
// show how many they have, their scales do: behind streams, indexes and maybe biases. The descriptor is longer by the number of
// such weights.
int64_t outputs_of(int first, const int* ndims, int64_t** shapes, int weights, bool biased) {
  constexpr int64_t kPlainDescriptor = 4;
  int behind = first_weight(first, ndims, shapes);
  const int64_t compressed = behind == first ? 0 : shapes[first][0] - kPlainDescriptor;
  if (compressed > 0) {
    weights = compressed < weights ? static_cast<int>(compressed) : weights;
    behind += biased ? 3 * weights : 2 * weights;
  }
  int64_t total = 0;
  for (int i = behind; i < behind + weights; ++i) {
    const int64_t rows = rows_of(ndims[i], shapes[i]);
    total = rows < 0 || total < 0 ? kUnknownExtent : total + rows;
  }
  return total;
}

// x [..., K] and a projection to N_i -> [..., sum of N_i]
Shape linear_shape(const int* ndims, int64_t** shapes, int weights, bool biased) {
  return with_last(ndims[0], shapes[0], outputs_of(1, ndims, shapes, weights, biased));
}

}  // namespace

// Parameters of every shape inference and type inference function.
#define VMO_SHAPE_PARAMETERS int *ndims, int64_t **shapes, mindspore::AotExtra *
#define VMO_TYPE_PARAMETERS Types types, mindspore::AotExtra *

// Inference of a kernel that has a projection of `weights` weights behind x.
#define VMO_INFER_LINEAR(name, weights, biased)                                                                     \
  VMO_API Shape name##InferShape(VMO_SHAPE_PARAMETERS) { return linear_shape(ndims, shapes, weights, biased); } \
  VMO_API mindspore::TypeId name##InferType(VMO_TYPE_PARAMETERS) { return types[0]; }

// Inference of a kernel whose output is like its first tensor.
#define VMO_INFER_LIKE_FIRST(name)                                                                       \
  VMO_API Shape name##InferShape(VMO_SHAPE_PARAMETERS) { return copy_shape(ndims[0], shapes[0]); } \
  VMO_API mindspore::TypeId name##InferType(VMO_TYPE_PARAMETERS) { return types[0]; }

// Inference of a kernel with two outputs, both like its first tensor.
#define VMO_INFER_TWO_LIKE_FIRST(name)                                      \
  VMO_API std::vector<Shape> name##InferShape(VMO_SHAPE_PARAMETERS) {       \
    return {copy_shape(ndims[0], shapes[0]), copy_shape(ndims[0], shapes[0])}; \
  }                                                                         \
  VMO_API Types name##InferType(VMO_TYPE_PARAMETERS) { return {types[0], types[0]}; }

// Returning std::vector from extern "C" functions is what MindSpore's interface asks for.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wreturn-type-c-linkage"
#endif

VMO_INFER_LINEAR(vmo_linear_1, 1, false)
VMO_INFER_LINEAR(vmo_linear_2, 2, false)
VMO_INFER_LINEAR(vmo_linear_3, 3, false)
VMO_INFER_LINEAR(vmo_linear_bias_1, 1, true)
VMO_INFER_LINEAR(vmo_linear_bias_2, 2, true)
VMO_INFER_LINEAR(vmo_linear_bias_3, 3, true)
VMO_INFER_LINEAR(vmo_gate_up_swiglu, 1, false)

// hidden [T, K], rows [R], a projection to V -> float32 [R, V]
VMO_API Shape vmo_lm_headInferShape(VMO_SHAPE_PARAMETERS) {
  return {rows_of(ndims[1], shapes[1]), outputs_of(2, ndims, shapes, 1, false)};
}
VMO_API mindspore::TypeId vmo_lm_headInferType(Types, mindspore::AotExtra*) { return kFloat32; }

// weight [V, K], ids [T], any tensor of the result's dtype -> [T, K]
VMO_API Shape vmo_embeddingInferShape(VMO_SHAPE_PARAMETERS) {
  const int64_t width = ndims[0] < 2 ? kUnknownExtent : shapes[0][1];
  return {rows_of(ndims[1], shapes[1]), width};
}
VMO_API mindspore::TypeId vmo_embeddingInferType(VMO_TYPE_PARAMETERS) { return types[2]; }

// weight [R, K], ids [T], any tensor of the result's dtype, part -> [T, K]
VMO_API Shape vmo_embedding_partInferShape(VMO_SHAPE_PARAMETERS) {
  const int64_t width = ndims[0] < 2 ? kUnknownExtent : shapes[0][1];
  return {rows_of(ndims[1], shapes[1]), width};
}
VMO_API mindspore::TypeId vmo_embedding_partInferType(VMO_TYPE_PARAMETERS) { return types[2]; }

VMO_API Shape vmo_reshape_and_cacheInferShape(int*, int64_t**, mindspore::AotExtra*) { return {1}; }
VMO_API mindspore::TypeId vmo_reshape_and_cacheInferType(Types, mindspore::AotExtra*) { return kInt32; }

VMO_INFER_LIKE_FIRST(vmo_paged_attention)
VMO_INFER_LIKE_FIRST(vmo_lora_1)
VMO_INFER_LIKE_FIRST(vmo_lora_2)
VMO_INFER_LIKE_FIRST(vmo_lora_3)

VMO_INFER_TWO_LIKE_FIRST(vmo_attention_sublayer)
VMO_INFER_TWO_LIKE_FIRST(vmo_mlp_sublayer)
VMO_INFER_TWO_LIKE_FIRST(vmo_decoder_layers)

// qkv [T, (H + 2 KH) * D], key_cache [NB, BS, KH, D] -> [T, H * D]
VMO_API Shape vmo_attention_blockInferShape(VMO_SHAPE_PARAMETERS) {
  constexpr int kKeyCache = 9, kCacheRank = 4;
  int64_t width = ndims[0] < 2 ? kUnknownExtent : shapes[0][ndims[0] - 1];
  const bool known = ndims[kKeyCache] == kCacheRank && shapes[kKeyCache][2] > 0 && shapes[kKeyCache][3] > 0;
  width = width < 0 || !known ? kUnknownExtent : width - 2 * shapes[kKeyCache][2] * shapes[kKeyCache][3];
  return with_last(ndims[0], shapes[0], width);
}
VMO_API mindspore::TypeId vmo_attention_blockInferType(VMO_TYPE_PARAMETERS) { return types[0]; }
