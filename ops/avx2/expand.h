// SPDX-License-Identifier: Apache-2.0
// A word of compressed weights by byte shuffles: one control for each pattern of eight bits.
#pragma once

namespace {

// controls[second][mask]: for each bit of the mask that is set, which of 16 bytes goes there: counted from 0, or from 8 for the
// second half of a register. No bit: 0x80, which makes a zero.
struct ExpandControls {
  alignas(64) uint64_t of[2][256];

  constexpr ExpandControls() : of{} {
    for (int half = 0; half < 2; ++half) {
      for (int mask = 0; mask < 256; ++mask) {
        uint64_t control = 0, next = static_cast<uint64_t>(half) * 8;
        for (int bit = 0; bit < 8; ++bit) {
          control |= ((mask >> bit & 1) != 0 ? next++ : uint64_t{0x80}) << (8 * bit);
        }
        of[half][mask] = control;
      }
    }
  }
};

constexpr ExpandControls kExpandControls;

// Two vectors of eight bytes.
inline __m128i load_halves(const void* low, const void* high) {
  return _mm_insert_epi64(_mm_cvtsi64_si128(vmo::load_unaligned<int64_t>(low)), vmo::load_unaligned<int64_t>(high), 1);
}

// Of each byte of `mask`, how many bits the bytes before it have.
inline uint64_t bits_before(uint64_t mask) {
  uint64_t bits = mask - (mask >> 1 & 0x5555555555555555u);
  bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
  bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return bits * 0x0101010101010101u << 8;
}

// 64 weights: the next of `values` where `mask` has a bit, else 0. `values` has 64 bytes, whatever the mask.
inline void expand_word(uint64_t mask, const char* values, int8_t* out) {
  uint64_t before = bits_before(mask);
  for (int i = 0; i < 4; ++i, mask >>= 16, before >>= 16) {
    const __m128i bytes = load_halves(values + (before & 0xff), values + (before >> 8 & 0xff));
    const __m128i control = load_halves(&kExpandControls.of[0][mask & 0xff], &kExpandControls.of[1][mask >> 8 & 0xff]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out) + i, _mm_shuffle_epi8(bytes, control));
  }
}

}  // namespace
