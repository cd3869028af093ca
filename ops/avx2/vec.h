// SPDX-License-Identifier: Apache-2.0
// Vector of eight floats in an AVX2 register.
#pragma once

#include <immintrin.h>

#include "vmo/half.h"

namespace {

using vmo::BFloat16;
using vmo::Half;

struct Vec {
  static constexpr int kLanes = 8;
  __m256 v;

  static Vec zero() { return {_mm256_setzero_ps()}; }
  static Vec set1(float x) { return {_mm256_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(const int8_t* p) { return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load8(p)))}; }
  static Vec load(const Half* p) { return {_mm256_cvtph_ps(load16(p))}; }
  static Vec load(const BFloat16* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(p)), 16))};
  }
  // First n lanes from memory, the others zero.
  template <class T>
  static Vec load_first(const T* p, int n) {
    T lanes[kLanes] = {};
    std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(T));
    return load(lanes);
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store(Half* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  void store(BFloat16* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), round_to_bfloat16()); }
  template <class T>
  void store_first(T* p, int n) const {
    T lanes[kLanes];
    store(lanes);
    std::memcpy(p, lanes, static_cast<size_t>(n) * sizeof(T));
  }
  // Lanes n.. replaced by `fill`.
  Vec keep_first(int n, float fill) const {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
    return {_mm256_blendv_ps(_mm256_set1_ps(fill), v, _mm256_castsi256_ps(keep))};
  }

 private:
  static __m128i load8(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
  template <class T>
  static __m128i load16(const T* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  __m128i round_to_bfloat16() const {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  }
};

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Vec round_nearest(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

// a * 2^n for integral n in [-126, 127].
inline Vec scale_by_power(Vec a, Vec n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)))};
}

inline __m128 fold_halves(Vec a) { return _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1)); }

// Sums of four vectors, each by the same tree of additions.
inline void reduce_add4(const Vec (&a)[4], float* out) {
  const __m128 low = _mm_hadd_ps(fold_halves(a[0]), fold_halves(a[1]));
  const __m128 high = _mm_hadd_ps(fold_halves(a[2]), fold_halves(a[3]));
  _mm_storeu_ps(out, _mm_hadd_ps(low, high));
}

constexpr bool kHasReduceAdd16 = false;
template <class V, class Out>
void reduce_add16(const V (*a)[4], Out (*out)[4]) = delete;

// The signed low and high halves of eight bytes.
inline void load_nibbles(const uint8_t* p, Vec* low, Vec* high) {
  const __m256i bytes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  low->v = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(bytes, 28), 28));
  high->v = _mm256_cvtepi32_ps(_mm256_srai_epi32(bytes, 4));
}

// Rounded to the nearest of -128 .. 127, halves to even; 0 for NaN.
inline void store_codes(Vec a, int8_t* p, int n) {
  const __m256 clipped = _mm256_min_ps(_mm256_max_ps(a.v, _mm256_set1_ps(-128.0f)), _mm256_set1_ps(127.0f));
  const __m256 number = _mm256_and_ps(clipped, _mm256_cmp_ps(a.v, a.v, _CMP_ORD_Q));
  const __m256i codes = _mm256_cvtps_epi32(number);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  const int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(words, words));
  std::memcpy(p, &bytes, static_cast<size_t>(n));
}

inline float reduce_max(Vec a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// (x0, x1, x2, x3, ...) -> (x1, x0, x3, x2, ...)
inline Vec swap_pairs(Vec a) { return {_mm256_permute_ps(a.v, 0xb1)}; }
// (-x0, x1, -x2, x3, ...)
inline Vec negate_even(Vec a) {
  return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000)))};
}

// Sixteen adjacent bfloat16 as floats: elements 0, 2, 4, ... and 1, 3, 5, ...
inline void load_even_odd(const BFloat16* p, Vec* even, Vec* odd) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  even->v = _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  odd->v = _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

}  // namespace
