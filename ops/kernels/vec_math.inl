// SPDX-License-Identifier: Apache-2.0
// exp and silu on vectors, and loops over full vectors with one partial vector at the end.
#pragma once

namespace {

// e^x for x in [-87.3, 88.3], NaN kept; exp(0) is exactly 1. Smaller x count as -87.3, larger ones give +infinity
// (from 88.4 or 88.8 on, as the instruction set scales). x = n ln 2 + r, |r| <= ln 2 / 2,
// then the degree-6 Taylor-Chebyshev polynomial of e^r: relative error below 3e-7.
inline Vec exp(Vec x) {
  const Vec low = Vec::set1(-87.3f), high = Vec::set1(89.0f);
  x = max(low, x);  // the second operand wins when it is NaN
  x = Vec::zero() - max(Vec::zero() - high, Vec::zero() - x);
  const Vec n = round_nearest(x * Vec::set1(1.44269504f));
  // ln 2 in two parts, so that n * first part is exact.
  Vec r = fma(n, Vec::set1(-0.693359375f), x);
  r = fma(n, Vec::set1(2.12194440e-4f), r);
  Vec p = Vec::set1(1.9875691500e-4f);
  p = fma(p, r, Vec::set1(1.3981999507e-3f));
  p = fma(p, r, Vec::set1(8.3334519073e-3f));
  p = fma(p, r, Vec::set1(4.1665795894e-2f));
  p = fma(p, r, Vec::set1(1.6666665459e-1f));
  p = fma(p, r, Vec::set1(5.0000001201e-1f));
  p = fma(p, r * r, r + Vec::set1(1.0f));
  return scale_by_power(p, n);
}

// x / (1 + e^-x)
inline Vec silu(Vec x) { return x / (Vec::set1(1.0f) + exp(Vec::zero() - x)); }

inline float reduce_add(Vec a) {
  const Vec four[4] = {a, a, a, a};
  float sums[4];
  reduce_add4(four, sums);
  return sums[0];
}

// Loads n <= kLanes elements.
template <class T>
inline Vec load_some(const T* p, int64_t n) {
  return n >= Vec::kLanes ? Vec::load(p) : Vec::load_first(p, static_cast<int>(n));
}

template <class T>
inline void store_some(Vec v, T* p, int64_t n) {
  if (n >= Vec::kLanes) {
    v.store(p);
  } else {
    v.store_first(p, static_cast<int>(n));
  }
}

// The vector as it would be read back after a store: rounded to T.
inline Vec round_to(Vec v, const float*) { return v; }
template <class T>
inline Vec round_to(Vec v, const T*) {
  T lanes[Vec::kLanes];
  v.store(lanes);
  return Vec::load(lanes);
}

template <class T>
inline const T* at(const char* base, int64_t element) {
  return reinterpret_cast<const T*>(base + element * static_cast<int64_t>(sizeof(T)));
}
template <class T>
inline T* at(char* base, int64_t element) {
  return reinterpret_cast<T*>(base + element * static_cast<int64_t>(sizeof(T)));
}

}  // namespace
