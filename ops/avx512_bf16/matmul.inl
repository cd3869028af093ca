// SPDX-License-Identifier: Apache-2.0
// bfloat16 matrix products of many rows with VDPBF16PS: a lane is a row of x, which is packed for that, and weights are
// broadcast, so nothing is summed across lanes. Sums differ in order from those of few rows, so a row's bits depend on
// which of the two ways its batch takes, and on nothing else.
#pragma once

#include "avx512_bf16/pack.h"

namespace {

constexpr int kStripCols = 8;  // columns that are summed together

// One strip, however many rows it holds, takes the time of 12 rows of dot products, two together that of 20.
inline bool packs(int64_t rows) { return rows > 12 && (rows <= kStripRows || rows > 20); }

inline __m512bh broadcast_pair(const BFloat16* p) {
  int32_t pair;
  std::memcpy(&pair, p, sizeof(pair));
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
}

// One step along K of kStrips strips, `strip` bytes apart, with kCols rows of w.
template <int kStrips, int kCols>
inline void add_step(const char* x, int64_t strip, const BFloat16* w, int64_t ldw, __m512 (&sums)[kStrips][kCols]) {
  for (int pair = 0; pair < kStepInner / 2; ++pair) {
    __m512bh rows[kStrips];
    for (int s = 0; s < kStrips; ++s) {
      rows[s] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(x + s * strip + pair * kPairBytes));
    }
    for (int n = 0; n < kCols; ++n) {
      const __m512bh weights = broadcast_pair(w + n * ldw + 2 * pair);
      for (int s = 0; s < kStrips; ++s) sums[s][n] = _mm512_dpbf16_ps(sums[s][n], rows[s], weights);
    }
  }
}

// Lane m of sums[n] -> out[m * kTileCols + n].
template <int kCols>
inline void store_turned(const __m512 (&sums)[kCols], float* out) {
  const auto load = [&](int n) { return n < kCols ? _mm512_castps_si512(sums[n]) : _mm512_setzero_si512(); };
  for_turned(load, [&](int m, __m512i lanes) {
    _mm512_mask_storeu_epi32(out + m * kTileCols, first_lanes(kCols), lanes);
  });
}

// The sums of kStrips strips with kCols rows of w. What lies `prefetch` elements ahead of w goes to the second-level
// cache (0: nothing).
template <int kStrips, int kCols>
inline void strip_sums(const char* x, const BFloat16* w, int64_t ldw, int64_t inner, int64_t prefetch, float* out) {
  const int64_t strip = strip_bytes(inner);
  __m512 sums[kStrips][kCols];
  for (auto& row : sums) {
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  int64_t k = 0;
  for (; k + kStepInner <= inner; k += kStepInner, x += kStepBytes) {
    if (prefetch != 0) {
      for (int n = 0; n < kCols; ++n) __builtin_prefetch(w + n * ldw + k + prefetch, 0, kSecondLevelCache);
    }
    add_step(x, strip, w + k, ldw, sums);
  }
  if (k < inner) {
    alignas(64) BFloat16 padded[kCols][kStepInner];
    for (int n = 0; n < kCols; ++n) _mm512_store_si512(padded[n], load_step(w + n * ldw + k, inner - k));
    add_step(x, strip, padded[0], kStepInner, sums);
  }
  for (int s = 0; s < kStrips; ++s) store_turned(sums[s], out + s * kStripRows * kTileCols);
}

template <int kStrips>
inline void sums_by_columns(const char* x, const BFloat16* w, int64_t ldw, int64_t inner, int64_t cols, bool stream,
                            float* out) {
  const int64_t prefetch = stream ? kStripCols * ldw : 0;
  int64_t n = 0;
  for (; n + kStripCols <= cols; n += kStripCols) {
    strip_sums<kStrips, kStripCols>(x, w + n * ldw, ldw, inner, prefetch, out + n);
  }
  for (; n < cols; ++n) strip_sums<kStrips, 1>(x, w + n * ldw, ldw, inner, 0, out + n);
}

// The sums of a part of up to three strips; part.m0 is a multiple of 16.
inline void part_sums(const char* packed, const char* weights, int64_t ldw, int64_t inner, const Tile& part, bool stream,
                      float* sums) {
  static_assert(kTileRows == 3 * kStripRows);
  const char* x = packed + part.m0 / kStripRows * strip_bytes(inner);
  const BFloat16* w = at<BFloat16>(weights, part.n0 * ldw);
  const int64_t rows = part.m1 - part.m0, cols = part.n1 - part.n0;
  if (rows > 2 * kStripRows) return sums_by_columns<3>(x, w, ldw, inner, cols, stream, sums);
  if (rows > kStripRows) return sums_by_columns<2>(x, w, ldw, inner, cols, stream, sums);
  return sums_by_columns<1>(x, w, ldw, inner, cols, stream, sums);
}

template <class Args>
inline auto sums_of_parts(const Args& args) {
  return [&args](const char* w, int64_t ldw, const Tile& part, bool first, float* sums) {
    part_sums(args.packed, w, ldw, args.inner, part, first, sums);
  };
}

void linear_strips(const LinearArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return linear<BFloat16>(args, tile);
  linear_packed<kTileRows, kTileCols>(args, tile, sums_of_parts(args));
}

void gate_up_strips(const GateUpArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return gate_up<BFloat16>(args, tile);
  gate_up_packed<kTileRows, kTileCols>(args, tile, sums_of_parts(args));
}

// The AVX-512 kernels with bfloat16 products of many rows on strips.
inline KernelTable strip_kernel_table() {
  KernelTable table = kernel_table("avx512_bf16");
  set_packed(&table, linear_strips, gate_up_strips, packs);
  return table;
}

}  // namespace
