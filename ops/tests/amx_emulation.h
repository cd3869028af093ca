// SPDX-License-Identifier: Apache-2.0
// The interface of amx/tiles.h in software, for tests on machines without AMX.
#pragma once

#include <cstdint>
#include <cstring>

#include "vmo/half.h"

namespace {

struct Tiles {
  uint8_t data[8][16][64];
  bool configured;
};

inline Tiles& tiles() {
  static thread_local Tiles state;
  return state;
}

class TileScope {
 public:
  TileScope() {
    // What a forgotten tile_zero would leave behind must show.
    std::memset(&tiles(), 0xff, sizeof(Tiles));
    tiles().configured = true;
  }
  ~TileScope() { tiles().configured = false; }
};

// An unconfigured tile faults on hardware.
inline void require_configured() {
  if (!tiles().configured) __builtin_trap();
}

template <int kTile>
inline void tile_zero() {
  require_configured();
  std::memset(tiles().data[kTile], 0, sizeof(tiles().data[kTile]));
}

template <int kTile>
inline void tile_load(const void* base, int64_t stride) {
  require_configured();
  for (int row = 0; row < 16; ++row) {
    std::memcpy(tiles().data[kTile][row], static_cast<const char*>(base) + row * stride, 64);
  }
}

template <int kTile>
inline void tile_store(void* base, int64_t stride) {
  require_configured();
  for (int row = 0; row < 16; ++row) {
    std::memcpy(static_cast<char*>(base) + row * stride, tiles().data[kTile][row], 64);
  }
}

inline float pair_element(const uint8_t (&tile)[16][64], int row, int element) {
  return to_float(vmo::load_unaligned<vmo::BFloat16>(tile[row] + 2 * element));
}

// Every sum of tile kSum becomes add(it, row, column).
template <class Sum, int kSum, class Add>
inline void update_sums(Add add) {
  require_configured();
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) {
      uint8_t* place = tiles().data[kSum][i] + 4 * j;
      vmo::store_unaligned(place, add(vmo::load_unaligned<Sum>(place), i, j));
    }
  }
}

template <int kSum, int kA, int kB>
inline void tile_dot_bf16() {
  const auto& a = tiles().data[kA];
  const auto& b = tiles().data[kB];
  update_sums<float, kSum>([&](float sum, int i, int j) {
    for (int k = 0; k < 16; ++k) {
      sum += pair_element(a, i, 2 * k) * pair_element(b, k, 2 * j);
      sum += pair_element(a, i, 2 * k + 1) * pair_element(b, k, 2 * j + 1);
    }
    return sum;
  });
}

inline uint32_t code_product(const uint8_t* a, const uint8_t* b) {
  return static_cast<uint32_t>(vmo::load_unaligned<int8_t>(a) * vmo::load_unaligned<int8_t>(b));
}

template <int kSum, int kA, int kB>
inline void tile_dot_int8() {
  const auto& a = tiles().data[kA];
  const auto& b = tiles().data[kB];
  update_sums<uint32_t, kSum>([&](uint32_t sum, int i, int j) {
    for (int k = 0; k < 64; ++k) sum += code_product(a[i] + k, b[k / 4] + 4 * j + k % 4);
    return sum;
  });
}

}  // namespace
