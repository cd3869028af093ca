// SPDX-License-Identifier: Apache-2.0
// Ways to multiply and accumulate along K. Every output of a matrix product runs through the same sequence of
// `mac` calls and the same final reduction, so it does not depend on how many other outputs are computed beside it.
#pragma once

namespace {

// What products of floats have in common.
struct FloatSums {
  using Sum = Vec;
  using Out = float;
  // Whether left operands are shifted by a constant; its product with the right ones is then taken off the sums.
  static constexpr bool kShifted = false;
  static Sum zero() { return Vec::zero(); }
};

// What products of int8 have in common: sums are exact, and wrap like int32.
struct IntegerSums {
  using Out = int32_t;
  static constexpr bool kShifted = false;
};

// Widens each operand to float: one vector of elements per step.
template <class T>
struct WidenDot : FloatSums {
  using Chunk = Vec;
  static constexpr int kStep = Vec::kLanes;
  static Chunk load(const T* p) { return Vec::load(p); }
  static Chunk load_first(const T* p, int n) { return Vec::load_first(p, n); }
  static Vec mac(Vec sum, Chunk a, Chunk b) { return fma(a, b, sum); }
};

// bfloat16 as pairs in 32-bit lanes: a shift and a mask instead of two widening loads.
template <class V>
struct EvenOddDot : FloatSums {
  struct Chunk {
    V even, odd;
  };
  static constexpr int kStep = 2 * V::kLanes;
  static Chunk load(const BFloat16* p) {
    Chunk chunk;
    load_even_odd(p, &chunk.even, &chunk.odd);
    return chunk;
  }
  static Chunk load_first(const BFloat16* p, int n) {
    BFloat16 lanes[kStep] = {};
    std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(BFloat16));
    return load(lanes);
  }
  static V mac(V sum, Chunk a, Chunk b) { return fma(a.odd, b.odd, fma(a.even, b.even, sum)); }
};

// Codes of weights lie in blocks along K. Element i of an int8 block is its byte i; int4 elements i and kHalfBlock + i
// are the low and the high half of byte i, in two's complement.
constexpr int kCodeBlock = 64, kHalfBlock = 32;
struct Int4Pair {
  uint8_t bits;
};

// Products of floats and codes, one vector of each half of a block per step; instruction sets may have better ones.
template <class T>
struct CodeDot : WidenDot<T> {
  static Vec one() { return Vec::set1(1.0f); }
  static void load_codes(const int8_t* block, int i, Vec* low, Vec* high) {
    *low = Vec::load(block + i);
    *high = Vec::load(block + kHalfBlock + i);
  }
  static void load_codes(const Int4Pair* block, int i, Vec* low, Vec* high) { load_nibbles(&block[i].bits, low, high); }
};

// Elements of the left operand.
template <class D, class T>
inline typename D::Chunk load_left(const T* p) {
  if constexpr (D::kShifted) {
    return D::shifted(D::load(p));
  } else {
    return D::load(p);
  }
}
template <class D, class T>
inline typename D::Chunk load_left_first(const T* p, int n) {
  if constexpr (D::kShifted) {
    return D::shifted(D::load_first(p, n));
  } else {
    return D::load_first(p, n);
  }
}

}  // namespace
