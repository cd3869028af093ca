// SPDX-License-Identifier: Apache-2.0
// Rows of compressed weights (docs/sparse_quant_format.md) as plain int8: include after a folder's expand.h, which brings
// `expand_word`.
#pragma once

#include <cstring>

#include "vmo/dtype.h"
#include "vmo/kernel_table.h"

namespace {

using vmo::SparseCursor;
using vmo::SparseKernels;
using vmo::TileCoding;

constexpr int64_t kMaskBytes = 8;
constexpr int64_t kValuesAhead = 2048;  // bytes: a row takes up to 256

inline uint64_t mask_at(const char* row, int word) { return vmo::load_unaligned<uint64_t>(row + word * kMaskBytes); }

inline int64_t count_bits(uint64_t mask) { return __builtin_popcountll(mask); }

// The next row of a bitmap; values are taken from no later than `last`.
inline void expand_bitmap_row(SparseCursor* cursor, const char* last, int8_t* out) {
  const char* values = cursor->values;
  __builtin_prefetch(values + kValuesAhead);
  __builtin_prefetch(values + kValuesAhead + 64);
  for (int word = 0; word < cursor->words; ++word) {
    const uint64_t mask = mask_at(cursor->row, word);
    values = values < last ? values : last;
    expand_word(mask, values, out + word * vmo::kSparseWord);
    values += count_bits(mask);
  }
  cursor->values = values;
  cursor->row += cursor->words * kMaskBytes;
}

inline void expand_rows(SparseCursor* cursor, int rows, const char* end, int8_t* out, int64_t ld) {
  const auto bytes = static_cast<size_t>(cursor->words) * vmo::kSparseWord;
  const char* last = end - vmo::kSparseWord;
  for (int row = 0; row < rows; ++row, out += ld) {
    switch (cursor->coding) {
      case TileCoding::kBitmap: expand_bitmap_row(cursor, last, out); break;
      case TileCoding::kDense:
        std::memcpy(out, cursor->row, bytes);
        cursor->row += bytes;
        break;
      default: std::memset(out, 0, bytes);
    }
  }
}

inline void skip_rows(SparseCursor* cursor, int rows) {
  if (cursor->coding == TileCoding::kZero) return;
  const int64_t words = static_cast<int64_t>(rows) * cursor->words;
  if (cursor->coding == TileCoding::kDense) {
    cursor->row += words * vmo::kSparseWord;
    return;
  }
  int64_t values = 0;
  for (int64_t word = 0; word < words; ++word) values += count_bits(mask_at(cursor->row, static_cast<int>(word)));
  cursor->values += values;
  cursor->row += words * kMaskBytes;
}

}  // namespace
