// SPDX-License-Identifier: Apache-2.0
// Register blocks of the AVX-512 matrix product with native bfloat16 pairs (VDPBF16PS: two products per lane, summed
// in float32 rounding to nearest even, subnormals flushed to zero) and native int8 quadruples (VPDPBUSD, whose left
// operand is unsigned: codes are taken plus 128).
#pragma once

#include "kernels/dot_traits.inl"

namespace {

template <class T>
struct Dot : WidenDot<T> {
  static constexpr int kMaxRows = 4;
};

template <>
struct Dot<BFloat16> : FloatSums {
  using Chunk = __m512bh;
  static constexpr int kMaxRows = 6;
  static constexpr int kStep = 2 * Vec::kLanes;
  static Chunk load(const BFloat16* p) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p)); }
  static Chunk load_first(const BFloat16* p, int n) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << n) - 1);
    return reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(mask, p));
  }
  static Vec mac(Vec sum, Chunk a, Chunk b) { return {_mm512_dpbf16_ps(sum.v, a, b)}; }
};

template <>
struct CodeDot<BFloat16> : Dot<BFloat16> {
  static Chunk one() { return reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80)); }
  static void load_codes(const int8_t* block, int i, Chunk* low, Chunk* high) {
    *low = _mm512_cvtne2ps_pbh(Vec::load(block + i + 16).v, Vec::load(block + i).v);
    *high = _mm512_cvtne2ps_pbh(Vec::load(block + kHalfBlock + i + 16).v, Vec::load(block + kHalfBlock + i).v);
  }
  // Looked up by five bits, of which the fifth belongs to the other half: the table holds the values twice.
  static void load_codes(const Int4Pair* block, int i, Chunk* low, Chunk* high) {
    alignas(64) static constexpr uint16_t kValues[32] = {
        0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,  // 0 .. 7
        0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,  // -8 .. -1
        0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
        0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80};
    const __m512i values = _mm512_load_si512(kValues);
    const __m512i bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + i)));
    *low = reinterpret_cast<__m512bh>(_mm512_permutexvar_epi16(bytes, values));
    *high = reinterpret_cast<__m512bh>(_mm512_permutexvar_epi16(_mm512_srli_epi16(bytes, 4), values));
  }
};

template <>
struct Dot<int8_t> : IntegerSums {
  using Sum = IntVec;
  using Chunk = __m512i;
  static constexpr int kMaxRows = 4;
  static constexpr int kStep = 4 * Vec::kLanes;
  static constexpr bool kShifted = true;
  static Sum zero() { return {_mm512_setzero_si512()}; }
  static Chunk load(const int8_t* p) { return _mm512_loadu_si512(p); }
  static Chunk load_first(const int8_t* p, int n) {
    return _mm512_maskz_loadu_epi8((uint64_t{1} << n) - 1, p);
  }
  static Chunk shift() { return _mm512_set1_epi8(-128); }
  static Chunk shifted(Chunk codes) { return _mm512_xor_si512(codes, shift()); }
  static Sum mac(Sum sum, Chunk a, Chunk b) { return {_mm512_dpbusd_epi32(sum.v, a, b)}; }
};

}  // namespace
