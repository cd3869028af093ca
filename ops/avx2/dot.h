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
struct Dot<BFloat16> : EvenOddDot<Vec> {
  static constexpr int kMaxRows = 2;
};

}  // namespace
