// SPDX-License-Identifier: Apache-2.0
// Rows of compressed weights in registers.
#pragma once

namespace {

// Bytes of values in a row of four words up to which a line is fetched for every second word: more would be asked for twice.
constexpr int kFewValues = 144;

// kWords vectors of weights of the next row.
template <int kWords>
inline void next_bitmap_row(SparseCursor* cursor, const char* last, __m512i* weights) {
  const char* values = cursor->values;
  uint64_t masks[kWords];
  for (int i = 0; i < kWords; ++i) {
    masks[i] = mask_at(cursor->row, i);
    __asm__("" : "+r"(masks[i]));
  }
  const int skipped = cursor->value_bytes > kFewValues ? 0 : 1;
  if (values + (kWords - 1) * kSparseWord <= last) {
    for (int i = 0; i < kWords; ++i) {
      if ((i & skipped) == 0) _mm_prefetch(values + kValuesAhead, _MM_HINT_T0);
      weights[i] = expanded(masks[i], values);
      values += count_bits(masks[i]);
    }
  } else {
    for (int i = 0; i < kWords; ++i) {
      values = values < last ? values : last;
      weights[i] = expanded(masks[i], values);
      values += count_bits(masks[i]);
    }
  }
  cursor->values = values;
  cursor->row += kWords * kMaskBytes;
}

template <int kWords>
inline void next_dense_row(SparseCursor* cursor, __m512i* weights) {
  for (int i = 0; i < kWords; ++i) {
    _mm_prefetch(cursor->row + kValuesAhead + i * kLine, _MM_HINT_T0);
    weights[i] = _mm512_loadu_si512(cursor->row + i * kSparseWord);
  }
  cursor->row += kWords * kSparseWord;
}

template <int kWords, bool kBitmap>
inline void next_row(SparseCursor* cursor, const char* last, __m512i* weights) {
  if constexpr (kBitmap) {
    next_bitmap_row<kWords>(cursor, last, weights);
  } else {
    next_dense_row<kWords>(cursor, weights);
  }
}

// What the next tile begins with, a line for each row of this one. To be prefetched by those who read rows: GCC drops calls of
// functions that do nothing else.
struct NextTile {
  const char* row;
  const char* values;

  const char* line(int n, int cols) const { return n < cols / 2 ? row + n * kLine : values + (n - cols / 2) * kLine; }
};

// Behind the last tile lies what the next call reads.
inline NextTile next_tile(const SparseSums& args, int64_t tile) {
  const SparseCursor* cursor = args.cursors + tile;
  return tile + 1 < args.tiles ? NextTile{cursor[1].row, cursor[1].values} : NextTile{cursor->values, cursor->values};
}

}  // namespace
