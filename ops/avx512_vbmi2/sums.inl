// SPDX-License-Identifier: Apache-2.0
// Sums of few rows of x with compressed weights, which are expanded in registers: VPEXPANDB beside VPDPBUSD.
//
// VPDPBUSD wants one side without signs: that is the weights plus 128, so the sums exceed the product by 128 times those of the
// inputs.
#pragma once

#include "avx512_vbmi2/rows.inl"

namespace {

template <int kWords>
inline __m512i add_products(__m512i sum, const int8_t* x, const __m512i* weights) {
  for (int i = 0; i < kWords; ++i) {
    sum = _mm512_dpbusd_epi32(sum, weights[i], _mm512_loadu_si512(x + i * kSparseWord));
  }
  return sum;
}

// Adds the products of the next `cols` rows of a tile; x: where the tile begins in it. sums: a vector for each row of each column.
template <int kWords, bool kBitmap, int kRows>
inline void add_tile(const SparseSums& args, SparseCursor* given, const int8_t* x, const NextTile& next, __m512i* sums) {
  SparseCursor cursor = *given;
  const char* last = args.end - kSparseWord;
  const int rows = kRows > 0 ? kRows : args.rows;
  const __m512i shift = _mm512_set1_epi8(-128);
  for (int n = 0; n < args.cols; ++n, sums += rows) {
    __m512i weights[kWords];
    _mm_prefetch(next.line(n, args.cols), _MM_HINT_T0);
    next_row<kWords, kBitmap>(&cursor, last, weights);
    for (int i = 0; i < kWords; ++i) weights[i] = _mm512_xor_si512(weights[i], shift);
    for (int m = 0; m < rows; ++m) sums[m] = add_products<kWords>(sums[m], x + m * args.ldx, weights);
  }
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
