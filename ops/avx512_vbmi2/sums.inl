// SPDX-License-Identifier: Apache-2.0
// Sums of few rows of x with compressed weights, which are expanded in registers: VPEXPANDB beside VPDPBUSD.
//
// VPDPBUSD wants one side without signs: that is the weights plus 128, so the sums exceed the product by 128 times those of the
// inputs.
#pragma once

#include "avx512_vbmi2/rows.inl"

namespace {

// The products of one row of x with kCols columns, whose sums are `apart`.
template <int kWords, int kCols>
inline void add_products(const int8_t* x, const __m512i (&weights)[kCols][kWords], __m512i* sums, int apart) {
  __m512i added[kCols];
  for (int n = 0; n < kCols; ++n) added[n] = sums[n * apart];
  for (int i = 0; i < kWords; ++i) {
    const __m512i inputs = _mm512_loadu_si512(x + i * kSparseWord);
    for (int n = 0; n < kCols; ++n) added[n] = _mm512_dpbusd_epi32(added[n], weights[n][i], inputs);
  }
  for (int n = 0; n < kCols; ++n) sums[n * apart] = added[n];
}

// Those of all rows of x with the next kCols columns, which begin with column n. Inlined, so that the cursor stays in registers.
template <int kWords, bool kBitmap, int kRows, int kCols>
__attribute__((always_inline)) inline void add_columns(const SparseSums& args, SparseCursor* cursor, const int8_t* x,
                                                       const NextTile& next, int n, __m512i* sums) {
  const char* last = args.end - kSparseWord;
  const int rows = kRows > 0 ? kRows : args.rows;
  const __m512i shift = _mm512_set1_epi8(-128);
  __m512i weights[kCols][kWords];
  for (int i = 0; i < kCols; ++i) {
    next.prefetch(n + i, args.cols);
    next_row<kWords, kBitmap>(cursor, last, weights[i]);
    for (__m512i& word : weights[i]) word = _mm512_xor_si512(word, shift);
  }
  for (int m = 0; m < rows; ++m) add_products<kWords, kCols>(x + m * args.ldx, weights, sums + n * rows + m, rows);
}

// Adds the products of the next `cols` rows of a tile; x: where the tile begins in it. sums: a vector for each row of each column.
template <int kWords, bool kBitmap, int kRows>
inline void add_tile(const SparseSums& args, SparseCursor* given, const int8_t* x, const NextTile& next, __m512i* sums) {
  constexpr int kTogether = kRows == 1 ? 1 : 4;  // columns that share what is loaded of x
  SparseCursor cursor = *given;
  int n = 0;
  for (; n + kTogether <= args.cols; n += kTogether) {
    add_columns<kWords, kBitmap, kRows, kTogether>(args, &cursor, x, next, n, sums);
  }
  for (; n < args.cols; ++n) add_columns<kWords, kBitmap, kRows, 1>(args, &cursor, x, next, n, sums);
  *given = cursor;
}

template <int kWords, int kRows>
inline void add_tile(const SparseSums& args, SparseCursor* cursor, const int8_t* x, const NextTile& next, __m512i* sums) {
  const bool bitmap = cursor->coding == TileCoding::kBitmap;
  return bitmap ? add_tile<kWords, true, kRows>(args, cursor, x, next, sums)
                : add_tile<kWords, false, kRows>(args, cursor, x, next, sums);
}

template <int kWords>
inline void add_tile(const SparseSums& args, SparseCursor* cursor, const int8_t* x, const NextTile& next, __m512i* sums) {
  if (cursor->words != kWords) {
    if constexpr (kWords > 1) return add_tile<kWords - 1>(args, cursor, x, next, sums);
  }
  switch (args.rows) {
    case 1: return add_tile<kWords, 1>(args, cursor, x, next, sums);
    case 2: return add_tile<kWords, 2>(args, cursor, x, next, sums);
    case 4: return add_tile<kWords, 4>(args, cursor, x, next, sums);
    case 8: return add_tile<kWords, 8>(args, cursor, x, next, sums);
    default: return add_tile<kWords, 0>(args, cursor, x, next, sums);
  }
}

// Sixteen columns of row m of x.
inline void store_sums(const __m512i* sums, int rows, int m, int32_t shift, int32_t* out) {
  IntVec lanes[4][4];
  for (int n = 0; n < 16; ++n, sums += rows) lanes[n / 4][n % 4] = {sums[m]};
  int32_t shifted[4][4];
  reduce_add16(lanes, shifted);
  _mm512_storeu_si512(out, _mm512_sub_epi32(_mm512_loadu_si512(shifted), _mm512_set1_epi32(shift)));
}

void sparse_sums(const SparseSums& args) {
  __m512i sums[kSumVectors];
  const int rows = args.rows, cols = (args.cols + 15) / 16 * 16;
  for (int i = 0; i < cols * rows; ++i) sums[i] = _mm512_setzero_si512();
  uint32_t shifts[kSparseSumRows] = {};
  for_tiles(args, [&](int64_t tile, SparseCursor* cursor) {
    for (int m = 0; m < rows; ++m) shifts[m] += static_cast<uint32_t>(args.shifts[tile * rows + m]);
    const NextTile next = next_tile(args, tile);
    add_tile<kSparseCols / kSparseWord>(args, cursor, args.x + tile * kSparseCols, next, sums);
  });
  for (int n = 0; n < cols; n += 16) {
    for (int m = 0; m < rows; ++m) {
      store_sums(sums + n * rows, rows, m, static_cast<int32_t>(shifts[m]), sum_at(args, n, m));
    }
  }
}

}  // namespace
