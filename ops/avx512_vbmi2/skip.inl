// SPDX-License-Identifier: Apache-2.0
// Rows of compressed weights passed over with VPOPCNTQ.
#pragma once

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
