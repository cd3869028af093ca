// SPDX-License-Identifier: Apache-2.0
// A word of compressed weights with VPEXPANDB.
#pragma once

#include <cstring>
#include <type_traits>

#include "vmo/kernel_table.h"

namespace {

using vmo::SparseCursor;
using vmo::SparseKernels;
using vmo::TileCoding;

inline __m512i expanded(uint64_t mask, const char* values) {
  __m512i bytes = _mm512_loadu_si512(values);
  __asm__("" : "+v"(bytes));
  return _mm512_maskz_expand_epi8(mask, bytes);
}

inline void expand_word(uint64_t mask, const char* values, int8_t* out) {
  _mm512_storeu_si512(out, expanded(mask, values));
}

}  // namespace

#include "kernels/sparse.inl"

namespace {

// The set bits of `count` masks.
inline int64_t count_masks(const char* masks, int64_t count) {
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 8) {
    const auto given = static_cast<__mmask8>(count - i < 8 ? (1 << (count - i)) - 1 : 0xff);
    sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_maskz_loadu_epi64(given, masks + i * kMaskBytes)));
  }
  return _mm512_reduce_add_epi64(sum);
}

void skip_rows_quickly(SparseCursor* cursor, int rows) {
  if (cursor->coding != TileCoding::kBitmap) return skip_rows(cursor, rows);
  const int64_t words = static_cast<int64_t>(rows) * cursor->words;
  cursor->values += count_masks(cursor->row, words);
  cursor->row += words * kMaskBytes;
}

}  // namespace
