// SPDX-License-Identifier: Apache-2.0
// Sums of packed rows of x with compressed weights, on tiles: sixteen outputs of a tile of weights are expanded into the
// first-level cache while those before them are multiplied.
#pragma once

#include "amx/tiles.h"
#include "avx512_bf16/strips.h"
#include "avx512_bf16/turn.h"
#include "avx512_vbmi2/rows.inl"

namespace {

constexpr int kTileWords = kSparseCols / kSparseWord;
constexpr int kGroup = 16;                       // outputs of an AMX tile
constexpr int kGroupRows = kGroup / kTileWords;  // that are expanded beside one product
constexpr int kSumTiles = 4;

class PackedSums {
 public:
  explicit PackedSums(const SparseSums& args)
      : args_(args), strips_(args.rows > kStripRows ? 2 : 1), pass_cols_(kSumTiles / strips_ * kGroup) {
    // Outputs of a group that do not exist are multiplied, too.
    if (args.cols % kGroup != 0) std::memset(weights_, 0, sizeof(weights_));
  }

  void run() {
    const TileScope scope;
    zero();
    for (int first = 0; first < args_.cols; first += pass_cols_) {
      const int end = args_.cols - first < pass_cols_ ? args_.cols : first + pass_cols_;
      for_tiles(args_, [&](int64_t tile, SparseCursor* cursor) { add_tile<kTileWords>(cursor, tile, first, end); });
      if (pass_ != first) finish_pass(first);  // in which all tiles are zero
    }
    finish_pass(args_.cols);
  }

 private:
  // Expanded weights of a group that are still to be multiplied.
  struct Pending {
    int words = 0;
    int group;
    const int8_t* weights;
    const int8_t* x;
  };

  static void zero() {
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
  }

  // Outputs [first, end), whose sums the AMX tiles hold together.
  template <int kWords>
  void add_tile(SparseCursor* cursor, int64_t tile, int first, int end) {
    if (cursor->words != kWords) {
      if constexpr (kWords > 1) return add_tile<kWords - 1>(cursor, tile, first, end);
    }
    const NextTile next = next_tile(args_, tile);
    const int8_t* x = args_.x + tile * kTileWords * kStepBytes;
    for (int n = first; n < end; n += kGroup) {
      const char* ahead = next.line(n - first, end - first);
      const int rows = end - n < kGroup ? end - n : kGroup;
      int8_t* weights = weights_[which_ ^= 1];
      if (cursor->coding == TileCoding::kBitmap) {
        expand<kWords, true>(cursor, rows, ahead, weights);
      } else {
        expand<kWords, false>(cursor, rows, ahead, weights);
      }
      if (pass_ != first) finish_pass(first);
      pending_ = {kWords, (n - first) / kGroup, weights, x};
    }
  }

  // The next rows of a tile; multiplies what is pending, and fetches a line from `ahead` on for each row.
  template <int kWords, bool kBitmap>
  void expand(SparseCursor* given, int rows, const char* ahead, int8_t* out) {
    const char* last = args_.end - kSparseWord;
    SparseCursor cursor = *given;
    for (int word = 0, n = 0; word < kTileWords; ++word) {
      const int end = n + kGroupRows < rows ? n + kGroupRows : rows;
      for (; n < end; ++n, out += kSparseCols, ahead += kLine) {
        __m512i weights[kWords];
        _mm_prefetch(ahead, _MM_HINT_T1);
        next_row<kWords, kBitmap>(&cursor, last, weights);
        for (int i = 0; i < kWords; ++i) _mm512_store_si512(out + i * kSparseWord, weights[i]);
      }
      if (pending_.words > 0) multiply();
    }
    *given = cursor;
  }

  // The next word of what is pending.
  void multiply() {
    tile_load<4>(pending_.weights, kSparseCols);
    tile_load<6>(pending_.x, kLaneBytes);
    if (strips_ == 2) tile_load<7>(pending_.x + args_.ldx, kLaneBytes);
    switch (strips_ * pending_.group) {
      case 0: add<0>(); break;
      case 1: add<1>(); break;
      case 2: add<2>(); break;
      default: add<3>();
    }
    pending_.weights += kSparseWord;
    pending_.x += kStepBytes;
    --pending_.words;
  }

  // To sums of the first strip, and those of the second behind them.
  template <int kSums>
  void add() const {
    tile_dot_int8<kSums, 4, 6>();
    if constexpr (kSums % 2 == 0) {
      if (strips_ == 2) tile_dot_int8<kSums + 1, 4, 7>();
    }
  }

  // Stores the sums of the outputs before; those from `first` on are next.
  void finish_pass(int first) {
    while (pending_.words > 0) multiply();
    alignas(64) int32_t sums[kSumTiles][kGroup][kStripRows];
    constexpr int64_t kRowBytes = sizeof(sums[0][0]);
    tile_store<0>(sums[0], kRowBytes);
    tile_store<1>(sums[1], kRowBytes);
    tile_store<2>(sums[2], kRowBytes);
    tile_store<3>(sums[3], kRowBytes);
    for (int i = 0; i < kSumTiles; ++i) {
      const int n = pass_ + i / strips_ * kGroup, m0 = i % strips_ * kStripRows;
      if (n >= args_.cols) break;
      for_turned([&](int row) { return _mm512_load_si512(sums[i][row]); },
                 [&](int m, __m512i row) {
                   if (m0 + m < args_.rows) _mm512_storeu_si512(sum_at(args_, n, m0 + m), row);
                 });
    }
    zero();
    pass_ = first;
  }

  const SparseSums& args_;
  const int strips_;
  const int pass_cols_;
  alignas(64) int8_t weights_[2][kGroup * kSparseCols];
  int which_ = 0;
  int pass_ = 0;  // the first output of those whose sums the AMX tiles hold
  Pending pending_;
};

void packed_sums(const SparseSums& args) { PackedSums(args).run(); }

}  // namespace
