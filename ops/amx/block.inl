// SPDX-License-Identifier: Apache-2.0
// Products of blocks of outputs on AMX tiles: y^T = w . x^T, so that weights are read in their natural layout and only x
// is packed.
#pragma once

#include "amx/tiles.h"
#include "avx512_bf16/pack.h"

namespace {

constexpr int kTileRowsAmx = 16;  // rows of w, or of x, in one tile
constexpr int kBlock = 2 * kTileRowsAmx;  // a block of outputs is 2 x 2 tiles
static_assert(kTileRowsAmx == kStripRows);  // a tile is one step of a strip

// sums += w . x^T over the elements of one tile of each.
template <class T, int kSums, int kW, int kX>
inline void tile_dot() {
  if constexpr (sizeof(T) == 1) {
    tile_dot_int8<kSums, kW, kX>();
  } else {
    tile_dot_bf16<kSums, kW, kX>();
  }
}

// Rows [n, n1) of w as tiles of 16; rows and elements past the end are read as zeros.
template <class T, int kTile>
inline void load_weights(const char* w, int64_t ldw, int64_t n, int64_t n1, int64_t k, int64_t inner) {
  if (n + kTileRowsAmx <= n1 && k + kStepInner<T> <= inner) {
    tile_load<kTile>(at<T>(w, n * ldw + k), ldw * static_cast<int64_t>(sizeof(T)));
    return;
  }
  alignas(64) T padded[kTileRowsAmx][kStepInner<T>] = {};
  const size_t bytes = static_cast<size_t>(inner - k < kStepInner<T> ? inner - k : kStepInner<T>) * sizeof(T);
  for (int64_t row = n; row < n1 && row < n + kTileRowsAmx; ++row) {
    std::memcpy(padded[row - n], at<T>(w, row * ldw + k), bytes);
  }
  tile_load<kTile>(padded, sizeof(padded[0]));
}

// Hardware prefetchers do not follow sixteen rows at once that are so short.
constexpr int64_t kShortRowBytes = 2048;

// Rows of the next block to be fetched while `block` is multiplied; none whose weights have been read before.
template <class T>
inline int64_t rows_ahead(const Tile& tile, const Tile& block, int64_t inner) {
  if (block.m0 != tile.m0 || inner * static_cast<int64_t>(sizeof(T)) > kShortRowBytes) return 0;
  return tile.n1 - block.n1 < kBlock ? tile.n1 - block.n1 : kBlock;
}

// Fetches a step's share of the `rows` rows from row n on, in the order in which they lie in memory: it answers that
// fastest.
template <class T>
inline void fetch_share(const char* w, int64_t ldw, int64_t n, int64_t k, int64_t rows) {
  const char* share = w + (n * ldw + k * rows) * static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < rows; ++i) __builtin_prefetch(share + 64 * i, 0, kSecondLevelCache);
}

inline bool has_two_strips(const Tile& block) { return block.m1 - block.m0 > kTileRowsAmx; }
inline int tiles_of(const Tile& block) { return has_two_strips(block) ? 4 : 2; }

// Products of the rows of w that the block has with kStrips strips of packed rows, as sums[n][m] in tiles 0 to 3;
// fetches the `ahead` rows behind them and calls meanwhile() in every step along K.
template <class T, int kStrips, class Meanwhile>
inline void multiply_strips(const char* x, const char* w, int64_t ldw, const Tile& block, int64_t inner, int64_t ahead,
                            Meanwhile meanwhile) {
  tile_zero<0>();
  tile_zero<1>();
  if constexpr (kStrips == 2) {
    tile_zero<2>();
    tile_zero<3>();
  }
  for (int64_t k = 0; k < inner; k += kStepInner<T>, x += kStepBytes) {
    fetch_share<T>(w, ldw, block.n1, k, ahead);
    load_weights<T, 4>(w, ldw, block.n0, block.n1, k, inner);
    load_weights<T, 5>(w, ldw, block.n0 + kTileRowsAmx, block.n1, k, inner);
    tile_load<6>(x, 64);
    tile_dot<T, 0, 4, 6>();
    tile_dot<T, 1, 5, 6>();
    if constexpr (kStrips == 2) {
      tile_load<7>(x + strip_bytes<T>(inner), 64);
      tile_dot<T, 2, 4, 7>();
      tile_dot<T, 3, 5, 7>();
    }
    meanwhile();
  }
}

// The same for the block at rows m.. of x (packed) and n.. of w.
template <class T, class Meanwhile>
inline void multiply_block(const char* packed, const char* w, int64_t ldw, const Tile& block, int64_t inner,
                           int64_t ahead, Meanwhile meanwhile) {
  const char* x = packed + block.m0 / kTileRowsAmx * strip_bytes<T>(inner);
  if (has_two_strips(block)) {
    multiply_strips<T, 2>(x, w, ldw, block, inner, ahead, meanwhile);
  } else {
    multiply_strips<T, 1>(x, w, ldw, block, inner, ahead, meanwhile);
  }
}

// Sums of a block, as the tiles hold them.
template <class Sum>
struct TileSums {
  alignas(64) Sum tiles[4][kTileRowsAmx][kTileRowsAmx];

  void take(const Tile& block) {
    constexpr int64_t kRowBytes = sizeof(tiles[0][0]);
    tile_store<0>(tiles[0], kRowBytes);
    tile_store<1>(tiles[1], kRowBytes);
    if (!has_two_strips(block)) return;
    tile_store<2>(tiles[2], kRowBytes);
    tile_store<3>(tiles[3], kRowBytes);
  }

  // Those of one tile to their place in sums[m][n], whose rows are kTileCols apart.
  void turn(int tile, Sum* sums) const {
    Sum* out = sums + tile / 2 * kTileRowsAmx * kTileCols + tile % 2 * kTileRowsAmx;
    for_turned([&](int n) { return _mm512_load_si512(tiles[tile][n]); },
               [&](int m, __m512i row) { _mm512_storeu_si512(out + m * kTileCols, row); });
  }
};

}  // namespace
