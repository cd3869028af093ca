// SPDX-License-Identifier: Apache-2.0
// Register block of the AVX2 matrix product: 2 x 4 sums, four chunks of operands, of 16 registers.
#pragma once

#include "kernels/dot_traits.inl"

namespace {

template <class T>
struct Dot : WidenDot<T> {
  static constexpr int kMaxRows = 2;
};
template <>
struct Dot<int8_t> : IntegerSums {
  struct Sum {
    __m256i v;
  };
  using Chunk = __m256i;  // widened: products of bytes would saturate
  static constexpr int kMaxRows = 2;
  static constexpr int kStep = 16;
  static Sum zero() { return {_mm256_setzero_si256()}; }
  static Chunk load(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Chunk load_first(const int8_t* p, int n) {
    int8_t lanes[kStep] = {};
    std::memcpy(lanes, p, static_cast<size_t>(n));
    return load(lanes);
  }
  static Sum mac(Sum sum, Chunk a, Chunk b) { return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(a, b))}; }
};

inline __m128i fold_halves(Dot<int8_t>::Sum a) {
  return _mm_add_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
}

inline void reduce_add4(const Dot<int8_t>::Sum (&a)[4], int32_t* out) {
  const __m128i low = _mm_hadd_epi32(fold_halves(a[0]), fold_halves(a[1]));
  const __m128i high = _mm_hadd_epi32(fold_halves(a[2]), fold_halves(a[3]));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_hadd_epi32(low, high));
}

template <>
struct Dot<BFloat16> : EvenOddDot<Vec> {
  static constexpr int kMaxRows = 2;
};

}  // namespace
