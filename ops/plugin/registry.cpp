// SPDX-License-Identifier: Apache-2.0
// Names of the builtin primitives MindSpore (MS_OP_PLUGIN_PATH) takes from this library.
//
// A registered name replaces MindSpore's own CPU kernel for every dtype and layout, without fallback: only operations
// that are complete here may be listed.
#include <cstring>

#include "vmo/api.h"

namespace {

constexpr const char* kNames[] = {
    "AddRmsNorm", "AllGather", "AllReduce", "ApplyRotaryPosEmb", "Cast", "Dense", "DynamicQuantExt", "Embedding", "Gather", "MatMul",
    "PagedAttention", "QuantBatchMatmul", "QuantV2", "Reshape", "ReshapeAndCache", "RmsNorm", "RotaryPositionEmbedding",
    "QuantLinearSparse", "SiLU", "SplitWithSize", "Swiglu", "TensorMove", "WeightQuantBatchMatmul", "ZerosLike",
};

}  // namespace

VMO_API int GetRegisteredOpCount() { return static_cast<int>(sizeof(kNames) / sizeof(kNames[0])); }

VMO_API const char* const* GetAllRegisteredOps() { return kNames; }

VMO_API bool IsKernelRegistered(const char* name) {
  for (const char* known : kNames) {
    if (std::strcmp(known, name) == 0) return true;
  }
  return false;
}
