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
struct Dot<BFloat16> : EvenOddDot<Vec> {
  static constexpr int kMaxRows = 4;
};

}  // namespace
