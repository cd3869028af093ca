// SPDX-License-Identifier: Apache-2.0
// A word of compressed weights with VPEXPANDB.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

inline __m512i expanded(uint64_t mask, const char* values) {
  __m512i bytes = _mm512_loadu_si512(values);
  __asm__("" : "+v"(bytes));
  return _mm512_maskz_expand_epi8(mask, bytes);
}

inline void expand_word(uint64_t mask, const char* values, int8_t* out) {
  _mm512_storeu_si512(out, expanded(mask, values));
}

}  // namespace
