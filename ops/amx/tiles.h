// SPDX-License-Identifier: Apache-2.0
// The tile instructions the matrix product uses (Intel SDM vol. 1 ch. 18): every tile is 16 rows of 64 bytes.
//
// With VMO_EMULATE_AMX (tests only, never shipped) the same functions come from software, so that packing, tails and
// epilogues run on machines without a tile unit too.
#pragma once

#if defined(VMO_EMULATE_AMX)
#include "tests/amx_emulation.h"
#else

#include <cstdint>

namespace {

// Assembly instead of the intrinsics: GCC's are macros that want literal tile numbers, and their loads do not tell the
// compiler that they read memory, so it may drop the stores that filled a padded copy.

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "layout fixed by LDTILECFG");

// Tile state belongs to a thread and costs it save space: configured per task, released at its end.
class TileScope {
 public:
  TileScope() {
    const TileConfig config;
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  ~TileScope() { __asm__ volatile("tilerelease"); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

template <int kTile>
inline void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
// Sixteen rows of 64 bytes, `stride` bytes apart.
template <int kTile>
inline void tile_load(const void* base, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline void tile_store(void* base, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(base), "r"(stride), "i"(kTile) : "memory");
}
// sum[i][j] += a[i][2k] * b[k][2j] + a[i][2k+1] * b[k][2j+1] over the 16 pairs k, in float32.
template <int kSum, int kA, int kB>
inline void tile_dot_bf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

// sum[i][j] += the four products a[i][4k + b] * b[k][4j + b], over the 16 k, of int8 in int32.
template <int kSum, int kA, int kB>
inline void tile_dot_int8() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

}  // namespace

#endif
