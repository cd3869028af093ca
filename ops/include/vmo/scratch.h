// SPDX-License-Identifier: Apache-2.0
// Growing, 64-byte aligned work memory that a calling thread keeps between kernel calls.
#pragma once

#include <cstddef>

namespace vmo {

// Independent buffers of one thread, so that nested uses do not overwrite each other.
enum class ScratchSlot {
  kMaterialise0, kMaterialise1, kMaterialise2, kPack, kQuery, kTile, kGather, kTasks, kNarrow, kWide, kHidden, kResidual,
  kCodes, kTokenScales, kGateUp, kSparse, kSparseRows,
  kCount
};

// At least `bytes` bytes, valid until the same thread asks for the same slot again; never null
// (std::bad_alloc is thrown and turned into an error at the API boundary).
void* scratch(ScratchSlot slot, size_t bytes);

}  // namespace vmo
