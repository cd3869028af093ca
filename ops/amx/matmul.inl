// SPDX-License-Identifier: Apache-2.0
// bfloat16 and int8 matrix products on AMX tiles, for more rows than kSmallRows: y^T = w . x^T, so the weights are read
// in their natural layout and only x is packed. bfloat16 sums differ in order from the small-row path, so a row's bits
// may change when a batch crosses that limit; on either side they do not depend on the batch.
#pragma once

#include "amx/tiles.h"
#include "avx512_bf16/pack.h"

namespace {

constexpr int64_t kSmallRows = 4;
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

// Tile kTile holds sums[n][m]; writes them transposed to out[m][n], kTileCols apart.
template <int kTile, class Out>
inline void store_transposed(Out* out) {
  alignas(64) Out block[kTileRowsAmx][kTileRowsAmx];
  tile_store<kTile>(block, sizeof(block[0]));
  for (int m = 0; m < kTileRowsAmx; ++m) {
    for (int n = 0; n < kTileRowsAmx; ++n) out[m * kTileCols + n] = block[n][m];
  }
}

// Sums of the block at rows m.. of x (packed) and n.. of w, into sums[kBlock][kTileCols].
template <class T>
inline void block_sums(const char* packed, const char* w, int64_t ldw, const Tile& block, int64_t rows, int64_t inner,
                       typename Dot<T>::Out* sums) {
  const int64_t strip = strip_bytes<T>(inner);
  const char* x0 = packed + block.m0 / kTileRowsAmx * strip;
  // The last strip may be alone; its partner's sums are then computed from it again and dropped.
  const char* x1 = block.m0 + kTileRowsAmx < rows ? x0 + strip : x0;
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  for (int64_t k = 0; k < inner; k += kStepInner<T>) {
    const int64_t offset = k / kStepInner<T> * kStepBytes;
    load_weights<T, 4>(w, ldw, block.n0, block.n1, k, inner);
    load_weights<T, 5>(w, ldw, block.n0 + kTileRowsAmx, block.n1, k, inner);
    tile_load<6>(x0 + offset, 64);
    tile_load<7>(x1 + offset, 64);
    tile_dot<T, 0, 4, 6>();
    tile_dot<T, 1, 5, 6>();
    tile_dot<T, 2, 4, 7>();
    tile_dot<T, 3, 5, 7>();
  }
  store_transposed<0>(sums);
  store_transposed<1>(sums + kTileRowsAmx);
  store_transposed<2>(sums + kTileRowsAmx * kTileCols);
  store_transposed<3>(sums + kTileRowsAmx * kTileCols + kTileRowsAmx);
}

template <class Args>
inline auto sums_of_blocks(const Args& args) {
  return [&args](const char* w, int64_t ldw, const Tile& block, bool, float* sums) {
    block_sums<BFloat16>(args.packed, w, ldw, block, args.rows, args.inner, sums);
  };
}

void linear_amx(const LinearArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return linear<BFloat16>(args, tile);
  const TileScope scope;
  linear_packed<kBlock, kBlock>(args, tile, sums_of_blocks(args));
}

void gate_up_amx(const GateUpArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return gate_up<BFloat16>(args, tile);
  const TileScope scope;
  gate_up_packed<kBlock, kBlock>(args, tile, sums_of_blocks(args));
}

template <class T>
void int8_linear_amx(const Int8LinearArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return int8_linear<T>(args, tile);
  const TileScope scope;
  alignas(64) int32_t sums[kBlock * kTileCols];
  for_parts<kBlock, kBlock>(tile, [&](const Tile& block) {
    const int i = block.weight;
    block_sums<int8_t>(args.packed, args.w[i], args.ldw[i], block, args.rows, args.inner, sums);
    store_dequantized<T>(args, block, sums);
  });
}

// The AVX-512 kernels with the bfloat16 and int8 products on tiles.
inline KernelTable amx_kernel_table() {
  const auto packs = [](int64_t rows) { return rows > kSmallRows; };
  KernelTable table = kernel_table("amx");
  set_packed(&table, linear_amx, gate_up_amx, packs);
  set_int8(&table, int8_linear_amx<float>, int8_linear_amx<Half>, int8_linear_amx<BFloat16>, packing<int8_t>(packs));
  return table;
}

}  // namespace
