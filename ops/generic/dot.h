// SPDX-License-Identifier: Apache-2.0
// Register block of the portable matrix product.
#pragma once

#include "kernels/dot_traits.inl"

namespace {

template <class T>
struct Dot : WidenDot<T> {
  static constexpr int kMaxRows = 2;
};

}  // namespace
