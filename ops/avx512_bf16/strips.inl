// SPDX-License-Identifier: Apache-2.0
// Sums of packed rows with VDPBF16PS and VPDPBUSD: a lane is a row of x and weights are broadcast, so nothing is summed
// across lanes.
#pragma once

#include "avx512_bf16/pack.h"

namespace {

constexpr int kStripCols = 8;  // columns that are summed together

// mac is no intrinsic: with those gcc 12 may keep most of 24 sums in memory, at half the speed.
template <class T>
struct StripDot;

template <>
struct StripDot<BFloat16> {
  using Sum = __m512;
  using Out = float;
  static Sum mac(Sum sum, __m512i rows, __m512i weights) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(rows), "v"(weights));
    return sum;
  }
  static Sum zero() { return _mm512_setzero_ps(); }
  static __m512i bits(Sum sum) { return _mm512_castps_si512(sum); }
};

template <>
struct StripDot<int8_t> {
  using Sum = __m512i;
  using Out = int32_t;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum mac(Sum sum, __m512i rows, __m512i weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(rows), "v"(weights));
    return sum;
  }
  static __m512i bits(Sum sum) { return sum; }
};

inline __m512i broadcast_lane(const void* p) {
  int32_t lane;
  std::memcpy(&lane, p, sizeof(lane));
  return _mm512_set1_epi32(lane);
}

// One step along K of kStrips strips, `strip` bytes apart, with kCols rows of w.
template <class T, int kStrips, int kCols>
inline void add_step(const char* x, int64_t strip, const T* w, int64_t ldw,
                     typename StripDot<T>::Sum (&sums)[kStrips][kCols]) {
  for (int lane = 0; lane < 16; ++lane) {
    __m512i rows[kStrips];
    for (int s = 0; s < kStrips; ++s) rows[s] = _mm512_loadu_si512(x + s * strip + lane * kLaneBytes);
    for (int n = 0; n < kCols; ++n) {
      const __m512i weights = broadcast_lane(w + n * ldw + kLaneInner<T> * lane);
      for (int s = 0; s < kStrips; ++s) sums[s][n] = StripDot<T>::mac(sums[s][n], rows[s], weights);
    }
  }
}

// Lane m of sums[n] -> out[m * kTileCols + n].
template <class T, int kCols>
inline void store_turned(const typename StripDot<T>::Sum (&sums)[kCols], typename StripDot<T>::Out* out) {
  const auto load = [&](int n) { return n < kCols ? StripDot<T>::bits(sums[n]) : _mm512_setzero_si512(); };
  for_turned(load, [&](int m, __m512i lanes) {
    _mm512_mask_storeu_epi32(out + m * kTileCols, first_lanes(kCols), lanes);
  });
}

// The sums of kStrips strips with kCols rows of w. What lies `prefetch` elements ahead of w goes to the second-level
// cache (0: nothing).
template <class T, int kStrips, int kCols>
inline void strip_sums(const char* x, const T* w, int64_t ldw, int64_t inner, int64_t prefetch,
                       typename StripDot<T>::Out* out) {
  const int64_t strip = strip_bytes<T>(inner);
  typename StripDot<T>::Sum sums[kStrips][kCols];
  for (auto& row : sums) {
    for (auto& sum : row) sum = StripDot<T>::zero();
  }
  int64_t k = 0;
  for (; k + kStepInner<T> <= inner; k += kStepInner<T>, x += kStepBytes) {
    if (prefetch != 0) {
      for (int n = 0; n < kCols; ++n) __builtin_prefetch(w + n * ldw + k + prefetch, 0, kSecondLevelCache);
    }
    add_step<T>(x, strip, w + k, ldw, sums);
  }
  if (k < inner) {
    alignas(64) T padded[kCols][kStepInner<T>];
    for (int n = 0; n < kCols; ++n) _mm512_store_si512(padded[n], load_step(w + n * ldw + k, inner - k));
    add_step<T>(x, strip, padded[0], kStepInner<T>, sums);
  }
  for (int s = 0; s < kStrips; ++s) store_turned<T>(sums[s], out + s * kStripRows * kTileCols);
}

// Codes are packed plus 128, so the sums of column n contain 128 times those of row n of w as well.
inline int32_t shift_of(const int8_t* w, int64_t inner) {
  __m512i sum = _mm512_setzero_si512();
  for (int64_t k = 0; k < inner; k += kStepInner<int8_t>) {
    sum = StripDot<int8_t>::mac(sum, Dot<int8_t>::shift(), load_step(w + k, inner - k));
  }
  return _mm512_reduce_add_epi32(sum);
}

// Takes the shifts of `cols` rows of w (up to 16) off their columns.
inline void remove_shifts(const int8_t* w, int64_t ldw, int64_t inner, int cols, int rows, int32_t* out) {
  alignas(64) int32_t shifts[16] = {};
  for (int n = 0; n < cols; ++n) shifts[n] = shift_of(w + n * ldw, inner);
  const __m512i all = _mm512_load_si512(shifts);
  const __mmask16 mask = first_lanes(cols);
  for (int m = 0; m < rows; ++m) {
    int32_t* row = out + m * kTileCols;
    _mm512_mask_storeu_epi32(row, mask, _mm512_sub_epi32(_mm512_maskz_loadu_epi32(mask, row), all));
  }
}

template <class T, int kStrips, int kCols>
inline void finished_sums(const char* x, const T* w, int64_t ldw, int64_t inner, int64_t prefetch,
                          typename StripDot<T>::Out* out) {
  strip_sums<T, kStrips, kCols>(x, w, ldw, inner, prefetch, out);
  if constexpr (Dot<T>::kShifted) remove_shifts(w, ldw, inner, kCols, kStrips * kStripRows, out);
}

template <class T, int kStrips>
inline void sums_by_columns(const char* x, const T* w, int64_t ldw, int64_t inner, int64_t cols, bool stream,
                            typename StripDot<T>::Out* out) {
  const int64_t prefetch = stream ? kStripCols * ldw : 0;
  int64_t n = 0;
  for (; n + kStripCols <= cols; n += kStripCols) {
    finished_sums<T, kStrips, kStripCols>(x, w + n * ldw, ldw, inner, prefetch, out + n);
  }
  for (; n < cols; ++n) finished_sums<T, kStrips, 1>(x, w + n * ldw, ldw, inner, 0, out + n);
}

// The sums of a part of up to three strips; part.m0 is a multiple of 16. `stream`: the weights come from memory.
template <class T>
inline void part_sums(const char* packed, const char* weights, int64_t ldw, int64_t inner, const Tile& part, bool stream,
                      typename StripDot<T>::Out* sums) {
  static_assert(kTileRows == 3 * kStripRows);
  const char* x = packed + part.m0 / kStripRows * strip_bytes<T>(inner);
  const T* w = at<T>(weights, part.n0 * ldw);
  const int64_t rows = part.m1 - part.m0, cols = part.n1 - part.n0;
  if (rows > 2 * kStripRows) return sums_by_columns<T, 3>(x, w, ldw, inner, cols, stream, sums);
  if (rows > kStripRows) return sums_by_columns<T, 2>(x, w, ldw, inner, cols, stream, sums);
  return sums_by_columns<T, 1>(x, w, ldw, inner, cols, stream, sums);
}

}  // namespace
