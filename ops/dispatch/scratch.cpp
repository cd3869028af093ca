// SPDX-License-Identifier: Apache-2.0
// Per-thread scratch buffers.
#include "vmo/scratch.h"

#include <cstdint>
#include <vector>

namespace vmo {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

void* scratch(ScratchSlot slot, size_t bytes) {
  static thread_local std::vector<uint8_t> buffers[static_cast<size_t>(ScratchSlot::kCount)];
  std::vector<uint8_t>& storage = buffers[static_cast<size_t>(slot)];
  if (storage.size() < bytes + kAlignment) {
    storage.clear();  // nothing to keep: do not copy on growth
    storage.resize(bytes + bytes / 2 + kAlignment);
  }
  const auto address = reinterpret_cast<uintptr_t>(storage.data());
  return reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace vmo
