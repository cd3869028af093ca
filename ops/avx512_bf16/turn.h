// SPDX-License-Identifier: Apache-2.0
// 16 x 16 lanes of 32 bits, turned in registers.
#pragma once

#include <immintrin.h>

namespace {

// Four rows -> four vectors: 128-bit lane l of quads[j] holds lane 4 l + j of the rows.
inline void turn_quads(__m512i a, __m512i b, __m512i c, __m512i d, __m512i (&quads)[4]) {
  const __m512i low = _mm512_unpacklo_epi32(a, b), high = _mm512_unpackhi_epi32(a, b);
  const __m512i low2 = _mm512_unpacklo_epi32(c, d), high2 = _mm512_unpackhi_epi32(c, d);
  quads[0] = _mm512_unpacklo_epi64(low, low2);
  quads[1] = _mm512_unpackhi_epi64(low, low2);
  quads[2] = _mm512_unpacklo_epi64(high, high2);
  quads[3] = _mm512_unpackhi_epi64(high, high2);
}

// The j-th quads of rows 0-3, 4-7, 8-11 and 12-15 -> lane 4 i + j of all rows in turned[i].
inline void turn_lanes(__m512i a, __m512i b, __m512i c, __m512i d, __m512i (&turned)[4]) {
  const __m512i even = _mm512_shuffle_i32x4(a, b, 0x88), odd = _mm512_shuffle_i32x4(a, b, 0xdd);
  const __m512i even2 = _mm512_shuffle_i32x4(c, d, 0x88), odd2 = _mm512_shuffle_i32x4(c, d, 0xdd);
  turned[0] = _mm512_shuffle_i32x4(even, even2, 0x88);
  turned[1] = _mm512_shuffle_i32x4(odd, odd2, 0x88);
  turned[2] = _mm512_shuffle_i32x4(even, even2, 0xdd);
  turned[3] = _mm512_shuffle_i32x4(odd, odd2, 0xdd);
}

// Calls body(lane, vector) for each of the 16 lanes of the 16 rows that load(row) gives.
template <class Load, class Body>
inline void for_turned(Load load, Body body) {
  __m512i quads[4][4];
  for (int g = 0; g < 4; ++g) turn_quads(load(4 * g), load(4 * g + 1), load(4 * g + 2), load(4 * g + 3), quads[g]);
  for (int j = 0; j < 4; ++j) {
    __m512i turned[4];
    turn_lanes(quads[0][j], quads[1][j], quads[2][j], quads[3][j], turned);
    for (int i = 0; i < 4; ++i) body(4 * i + j, turned[i]);
  }
}

}  // namespace
