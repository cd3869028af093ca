// SPDX-License-Identifier: Apache-2.0
// Register block of the AVX-512 matrix product: 4 x 4 sums of 32 registers.
#pragma once

#include "kernels/dot_traits.inl"

namespace {

template <class T>
struct Dot : WidenDot<T> {
  static constexpr int kMaxRows = 4;
};
template <>
struct Dot<int8_t> : IntegerSums {
  using Sum = IntVec;
  using Chunk = __m512i;  // widened: products of bytes would saturate
  static constexpr int kMaxRows = 4;
  static constexpr int kStep = 32;
  static Sum zero() { return {_mm512_setzero_si512()}; }
  static Chunk load(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Chunk load_first(const int8_t* p, int n) {
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(static_cast<__mmask32>((uint64_t{1} << n) - 1), p));
  }
  static Sum mac(Sum sum, Chunk a, Chunk b) { return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(a, b))}; }
};
template <>
struct Dot<BFloat16> : EvenOddDot<Vec> {
  static constexpr int kMaxRows = 4;
};

}  // namespace
