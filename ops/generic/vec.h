// SPDX-License-Identifier: Apache-2.0
// Portable vector of four floats on the compiler's vector extension (SSE2 or NEON registers, or scalars).
#pragma once

#include <cmath>

#include "vmo/half.h"

namespace {

using vmo::BFloat16;
using vmo::Half;

struct Vec {
  static constexpr int kLanes = 4;
  typedef float Register __attribute__((vector_size(16)));
  Register v;

  static Vec zero() { return {Register{}}; }
  static Vec set1(float x) { return {Register{x, x, x, x}}; }
  static Vec load(const float* p) { return {vmo::load_unaligned<Register>(p)}; }
  static Vec load(const int8_t* p) {
    return {Register{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
                     static_cast<float>(p[3])}};
  }
  template <class T>
  static Vec load(const T* p) {
    Vec r = zero();
    for (int i = 0; i < kLanes; ++i) r.v[i] = to_float(vmo::load_unaligned<T>(p + i));
    return r;
  }
  // First n lanes from memory, the others zero.
  template <class T>
  static Vec load_first(const T* p, int n) {
    T lanes[kLanes] = {};
    std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(T));
    return load(lanes);
  }
  void store(float* p) const { vmo::store_unaligned(p, v); }
  void store(Half* p) const {
    for (int i = 0; i < kLanes; ++i) vmo::store_unaligned(p + i, to_half(v[i]));
  }
  void store(BFloat16* p) const {
    for (int i = 0; i < kLanes; ++i) vmo::store_unaligned(p + i, to_bfloat16(v[i]));
  }
  template <class T>
  void store_first(T* p, int n) const {
    T lanes[kLanes];
    store(lanes);
    std::memcpy(p, lanes, static_cast<size_t>(n) * sizeof(T));
  }
  // Lanes n.. replaced by `fill`.
  Vec keep_first(int n, float fill) const {
    Vec r = *this;
    for (int i = n; i < kLanes; ++i) r.v[i] = fill;
    return r;
  }
};

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
inline Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
inline Vec abs(Vec a) { return max(a, Vec{-a.v}); }

inline Vec round_nearest(Vec a) {
  // Adding and removing 1.5 * 2^23 rounds to an integer for |a| < 2^22; exp() stays far below.
  const Vec magic = Vec::set1(12582912.0f);
  return (a + magic) - magic;
}

// a * 2^n for integral n in [-126, 127]: after adding 1.5 * 2^23 the low mantissa bits of n are the integer itself.
inline Vec scale_by_power(Vec a, Vec n) {
  Vec r = a;
  for (int i = 0; i < Vec::kLanes; ++i) {
    const uint32_t exponent = float_to_bits(n.v[i] + 12582912.0f) - 0x4b400000u + 127u;
    r.v[i] *= bits_to_float(exponent << 23);
  }
  return r;
}

// Sums of four vectors, each by the same tree of additions.
inline void reduce_add4(const Vec (&a)[4], float* out) {
  for (int i = 0; i < 4; ++i) out[i] = (a[i].v[0] + a[i].v[1]) + (a[i].v[2] + a[i].v[3]);
}

constexpr bool kHasReduceAdd16 = false;
template <class V, class Out>
void reduce_add16(const V (*a)[4], Out (*out)[4]) = delete;

// The signed low and high halves of kLanes bytes.
inline void load_nibbles(const uint8_t* p, Vec* low, Vec* high) {
  for (int i = 0; i < Vec::kLanes; ++i) {
    low->v[i] = static_cast<float>((p[i] & 15) - ((p[i] & 8) << 1));
    high->v[i] = static_cast<float>((p[i] >> 4) - ((p[i] & 128) >> 3));
  }
}

// Rounded to the nearest of -128 .. 127, halves to even; 0 for NaN.
inline void store_codes(Vec a, int8_t* p, int n) {
  for (int i = 0; i < n; ++i) {
    const float rounded = std::nearbyint(a.v[i]);
    const float low = rounded < -128.0f ? -128.0f : rounded;
    p[i] = rounded != rounded ? int8_t{0} : static_cast<int8_t>(low > 127.0f ? 127.0f : low);
  }
}

inline float reduce_max(Vec a) {
  const float low = a.v[0] > a.v[1] ? a.v[0] : a.v[1];
  const float high = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
  return low > high ? low : high;
}

// (x0, x1, x2, x3) -> (x1, x0, x3, x2)
inline Vec swap_pairs(Vec a) { return {Vec::Register{a.v[1], a.v[0], a.v[3], a.v[2]}}; }
// (-x0, x1, -x2, x3)
inline Vec negate_even(Vec a) { return {Vec::Register{-a.v[0], a.v[1], -a.v[2], a.v[3]}}; }

}  // namespace
