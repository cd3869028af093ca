// SPDX-License-Identifier: Apache-2.0
// Vector of sixteen floats in an AVX-512 register.
#pragma once

#include <immintrin.h>

#include <type_traits>

#include "vmo/half.h"

namespace {

using vmo::BFloat16;
using vmo::Half;

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline __m512 widen(const Half*, __m256i bits) { return _mm512_cvtph_ps(bits); }
inline __m512 widen(const BFloat16*, __m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline __m256i narrow(const Half*, __m512 v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
inline __m256i narrow(const BFloat16*, __m512 v) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
#else
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
#endif
}

struct Vec {
  static constexpr int kLanes = 16;
  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec set1(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  template <class T>
  static Vec load(const T* p) {
    return {widen(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Vec load(const int8_t* p) { return from_codes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  // First n lanes from memory, the others zero.
  static Vec load_first(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
  template <class T>
  static Vec load_first(const T* p, int n) {
    return {widen(p, _mm256_maskz_loadu_epi16(first_lanes(n), p))};
  }
  static Vec load_first(const int8_t* p, int n) { return from_codes(_mm_maskz_loadu_epi8(first_lanes(n), p)); }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  template <class T>
  void store(T* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(p, v));
  }
  void store_first(float* p, int n) const { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
  template <class T>
  void store_first(T* p, int n) const {
    _mm256_mask_storeu_epi16(p, first_lanes(n), narrow(p, v));
  }
  // Lanes n.. replaced by `fill`.
  Vec keep_first(int n, float fill) const { return {_mm512_mask_mov_ps(_mm512_set1_ps(fill), first_lanes(n), v)}; }

 private:
  static Vec from_codes(__m128i codes) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))}; }
};

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
inline Vec round_nearest(Vec a) { return {_mm512_roundscale_ps(a.v, 0)}; }
// a * 2^n for integral n.
inline Vec scale_by_power(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }

struct IntVec {
  __m512i v;
};
inline IntVec operator-(IntVec a, IntVec b) { return {_mm512_sub_epi32(a.v, b.v)}; }

inline __m128i fold_quarters(IntVec a) {
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(a.v), _mm512_extracti64x4_epi64(a.v, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

inline void reduce_add4(const IntVec (&a)[4], int32_t* out) {
  const __m128i low = _mm_hadd_epi32(fold_quarters(a[0]), fold_quarters(a[1]));
  const __m128i high = _mm_hadd_epi32(fold_quarters(a[2]), fold_quarters(a[3]));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_hadd_epi32(low, high));
}

inline __m128 fold_quarters(Vec a) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// Sums of four vectors, each by the same tree of additions.
inline void reduce_add4(const Vec (&a)[4], float* out) {
  const __m128 low = _mm_hadd_ps(fold_quarters(a[0]), fold_quarters(a[1]));
  const __m128 high = _mm_hadd_ps(fold_quarters(a[2]), fold_quarters(a[3]));
  _mm_storeu_ps(out, _mm_hadd_ps(low, high));
}

// Sums of 32-bit lanes, which are floats (V: Vec) or integers (IntVec) whatever the register says.
template <class V>
inline __m512 add_lanes(__m512 a, __m512 b) {
  if constexpr (std::is_same_v<V, Vec>) {
    return _mm512_add_ps(a, b);
  } else {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  }
}
inline __m512 lanes_of(Vec a) { return a.v; }
inline __m512 lanes_of(IntVec a) { return _mm512_castsi512_ps(a.v); }

// Sums of 4 x 4 vectors by the tree of reduce_add4, with a third of its instructions.
constexpr bool kHasReduceAdd16 = true;
template <class V, class Out>
inline void reduce_add16(const V (*a)[4], Out (*out)[4]) {
  const auto pairs = [](__m512 left, __m512 right) {
    return add_lanes<V>(_mm512_shuffle_ps(left, right, 0x88), _mm512_shuffle_ps(left, right, 0xdd));
  };
  __m512 columns[4];  // column j: in 128-bit lane i what row i's vector folds to
  for (int j = 0; j < 4; ++j) {
    __m512 halves[2];  // of rows 0 and 1, of rows 2 and 3
    for (int i = 0; i < 2; ++i) {
      const __m512 row = lanes_of(a[2 * i][j]), next = lanes_of(a[2 * i + 1][j]);
      halves[i] = add_lanes<V>(_mm512_shuffle_f32x4(row, next, 0x44), _mm512_shuffle_f32x4(row, next, 0xee));
    }
    columns[j] = add_lanes<V>(_mm512_shuffle_f32x4(halves[0], halves[1], 0x88),
                              _mm512_shuffle_f32x4(halves[0], halves[1], 0xdd));
  }
  _mm512_storeu_ps(out[0], pairs(pairs(columns[0], columns[1]), pairs(columns[2], columns[3])));
}

// The signed low and high halves of sixteen bytes, looked up.
inline void load_nibbles(const uint8_t* p, Vec* low, Vec* high) {
  const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  low->v = _mm512_permutexvar_ps(bytes, values);  // which looks at four bits
  high->v = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), values);
}

// Rounded to the nearest of -128 .. 127, halves to even; 0 for NaN.
inline void store_codes(Vec a, int8_t* p, int n) {
  const __m512 clipped = _mm512_min_ps(_mm512_max_ps(a.v, _mm512_set1_ps(-128.0f)), _mm512_set1_ps(127.0f));
  const __m512i codes = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(a.v, a.v, _CMP_ORD_Q), clipped);
  _mm512_mask_cvtepi32_storeu_epi8(p, first_lanes(n), codes);
}

inline float reduce_max(Vec a) {
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// (x0, x1, x2, x3, ...) -> (x1, x0, x3, x2, ...)
inline Vec swap_pairs(Vec a) { return {_mm512_permute_ps(a.v, 0xb1)}; }
// (-x0, x1, -x2, x3, ...)
inline Vec negate_even(Vec a) {
  return {_mm512_xor_ps(a.v, _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000)))};
}

// Thirty-two adjacent bfloat16 as floats: elements 0, 2, 4, ... and 1, 3, 5, ...
inline void load_even_odd(const BFloat16* p, Vec* even, Vec* odd) {
  const __m512i bits = _mm512_loadu_si512(p);
  even->v = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  odd->v = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

}  // namespace
