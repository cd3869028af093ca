// SPDX-License-Identifier: Apache-2.0
// Register block of the portable matrix product.
#pragma once

#include "kernels/dot_traits.inl"

namespace {

template <class T>
struct Dot : WidenDot<T> {
  static constexpr int kMaxRows = 2;
};

template <>
struct Dot<int8_t> : IntegerSums {
  typedef int32_t Sum __attribute__((vector_size(16)));
  using Chunk = Sum;
  static constexpr int kMaxRows = 2;
  static constexpr int kStep = 4;
  static Sum zero() { return Sum{}; }
  static Chunk load(const int8_t* p) { return Chunk{p[0], p[1], p[2], p[3]}; }
  static Chunk load_first(const int8_t* p, int n) {
    int8_t lanes[kStep] = {};
    std::memcpy(lanes, p, static_cast<size_t>(n));
    return load(lanes);
  }
  static Sum mac(Sum sum, Chunk a, Chunk b) { return sum + a * b; }
};

inline void reduce_add4(const Dot<int8_t>::Sum (&a)[4], int32_t* out) {
  for (int i = 0; i < 4; ++i) out[i] = a[i][0] + a[i][1] + a[i][2] + a[i][3];
}

}  // namespace
