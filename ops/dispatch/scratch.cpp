// SPDX-License-Identifier: Apache-2.0
// Per-thread scratch buffers.
#include "vmo/scratch.h"

#include <cstdint>
#include <memory>

namespace vmo {
namespace {

constexpr size_t kAlignment = 64;

struct Buffer {
  std::unique_ptr<uint8_t[]> memory;
  size_t size = 0;
};

}  // namespace

void* scratch(ScratchSlot slot, size_t bytes) {
  static thread_local Buffer buffers[static_cast<size_t>(ScratchSlot::kCount)];
  Buffer& storage = buffers[static_cast<size_t>(slot)];
  if (storage.size < bytes + kAlignment) {
    const size_t size = bytes + bytes / 2 + kAlignment;
    storage.size = 0;  // nothing to keep: old and new memory need not exist at once
    storage.memory.reset();
    storage.memory.reset(new uint8_t[size]);  // not make_unique, which would write zeros
    storage.size = size;
  }
  const auto address = reinterpret_cast<uintptr_t>(storage.memory.get());
  return reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace vmo
