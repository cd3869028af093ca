// SPDX-License-Identifier: Apache-2.0
// Sums of few rows of x with compressed weights, which are expanded in registers: byte shuffles beside VPMADDWD.
//
// Shuffles put each weight into the upper half of 16 bits, so products are 256 times what they should be: those of one tile fit
// into 32 bits, and are shifted back before they join the sums.
#pragma once

namespace {

constexpr int kMostRows = 4;   // of x
constexpr int kStep = 16;      // weights of a register
constexpr int kTileScale = 8;  // bits

// of[mask]: for each bit of the mask, which of eight bytes becomes the upper half of 16 bits; 0x80 makes a zero.
struct WidenControls {
  alignas(64) uint8_t of[256][16];

  constexpr WidenControls() : of{} {
    for (int mask = 0; mask < 256; ++mask) {
      uint8_t next = 0;
      for (int bit = 0; bit < 8; ++bit) {
        of[mask][2 * bit] = 0x80;
        of[mask][2 * bit + 1] = (mask >> bit & 1) != 0 ? next++ : uint8_t{0x80};
      }
    }
  }
};

constexpr WidenControls kWidenControls;

inline __m256i load_pair(const void* low, const void* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(low))),
                                 _mm_loadu_si128(static_cast<const __m128i*>(high)), 1);
}

inline __m256i widened(const void* codes) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(codes)));
}

// The next 16 weights, scaled; a mask for each half.
inline __m256i next_weights(const uint8_t* masks, const char** values) {
  const char* second = *values + count_bits(masks[0]);
  const __m256i bytes = load_pair(*values, second);
  *values = second + count_bits(masks[1]);
  return _mm256_shuffle_epi8(bytes, load_pair(kWidenControls.of[masks[0]], kWidenControls.of[masks[1]]));
}

// x: of the tile, widened: [kRows, kSparseCols]. sums: one for each row.
template <int kRows>
inline void add_products(__m256i weights, const int16_t* x, __m256i* sums) {
  for (int m = 0; m < kRows; ++m) {
    const __m256i inputs = _mm256_load_si256(reinterpret_cast<const __m256i*>(x + m * kSparseCols));
    sums[m] = _mm256_add_epi32(sums[m], _mm256_madd_epi16(weights, inputs));
  }
}

template <int kRows>
inline void add_word(const char* masks, const char** values, const int16_t* x, __m256i* sums) {
  for (int i = 0; i < kMaskBytes; i += 2, x += kStep) {
    add_products<kRows>(next_weights(reinterpret_cast<const uint8_t*>(masks) + i, values), x, sums);
  }
}

constexpr int kWordSpan = kSparseWord + 16;  // bytes, of which the values of a word are loaded

// A word whose values are among the last of the stream: those that it does not have are zero.
template <int kRows>
inline void add_last_word(const char* masks, const char** values, const char* last, const int16_t* x, __m256i* sums) {
  char copy[kWordSpan] = {};
  *values = *values < last ? *values : last;
  std::memcpy(copy, *values, kSparseWord);
  const char* next = copy;
  add_word<kRows>(masks, &next, x, sums);
  *values += next - copy;
}

template <int kRows>
inline void add_bitmap_row(SparseCursor* cursor, const char* end, const int16_t* x, __m256i* sums) {
  const char *values = cursor->values, *row = cursor->row;
  __builtin_prefetch(values + kValuesAhead);
  __builtin_prefetch(values + kValuesAhead + kLine);
  for (int word = 0; word < cursor->words; ++word, row += kMaskBytes, x += kSparseWord) {
    if (end - values >= kWordSpan) {
      add_word<kRows>(row, &values, x, sums);
    } else {
      add_last_word<kRows>(row, &values, end - kSparseWord, x, sums);
    }
  }
  cursor->values = values;
  cursor->row = row;
}

template <int kRows>
inline void add_dense_row(SparseCursor* cursor, const int16_t* x, __m256i* sums) {
  const int count = cursor->words * kSparseWord;
  for (int i = 0; i < count; i += kStep) add_products<kRows>(widened(cursor->row + i), x + i, sums);
  cursor->row += count;
}

template <int kRows, bool kBitmap>
inline void add_tile(const SparseSums& args, SparseCursor* given, const int16_t* x, __m256i* sums) {
  SparseCursor cursor = *given;
  for (int n = 0; n < args.cols; ++n, sums += kRows) {
    __m256i tile[kRows];
    for (__m256i& sum : tile) sum = _mm256_setzero_si256();
    if constexpr (kBitmap) {
      add_bitmap_row<kRows>(&cursor, args.end, x, tile);
      for (__m256i& sum : tile) sum = _mm256_srai_epi32(sum, kTileScale);
    } else {
      add_dense_row<kRows>(&cursor, x, tile);
    }
    for (int m = 0; m < kRows; ++m) sums[m] = _mm256_add_epi32(sums[m], tile[m]);
  }
  *given = cursor;
}

template <int kRows>
void add_tiles(const SparseSums& args) {
  __m256i sums[kSumVectors];
  const int cols = (args.cols + 3) / 4 * 4;
  for (int i = 0; i < cols * kRows; ++i) sums[i] = _mm256_setzero_si256();
  for_tiles(args, [&](int64_t tile, SparseCursor* cursor) {
    alignas(32) int16_t x[kRows * kSparseCols];
    for (int m = 0; m < kRows; ++m) {
      const int8_t* codes = args.x + m * args.ldx + tile * kSparseCols;
      auto* row = reinterpret_cast<__m256i*>(x + m * kSparseCols);
      for (int i = 0; i < cursor->words * kSparseWord; i += kStep) _mm256_store_si256(row++, widened(codes + i));
    }
    const bool bitmap = cursor->coding == TileCoding::kBitmap;
    return bitmap ? add_tile<kRows, true>(args, cursor, x, sums) : add_tile<kRows, false>(args, cursor, x, sums);
  });
  for (int n = 0; n < cols; n += 4) {
    for (int m = 0; m < kRows; ++m) {
      Dot<int8_t>::Sum four[4];
      for (int i = 0; i < 4; ++i) four[i] = {sums[(n + i) * kRows + m]};
      reduce_add4(four, sum_at(args, n, m));
    }
  }
}

void sparse_sums(const SparseSums& args) {
  switch (args.rows) {
    case 1: return add_tiles<1>(args);
    case 2: return add_tiles<2>(args);
    case 3: return add_tiles<3>(args);
    case kMostRows: return add_tiles<kMostRows>(args);
  }
}

}  // namespace
