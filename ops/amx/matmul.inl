// SPDX-License-Identifier: Apache-2.0
// bfloat16 matrix products on AMX tiles, for more rows than kSmallRows: y^T = w . x^T, so the weights are read in
// their natural layout and only x is packed. Sums differ in order from the small-row path, so a row's bits may change
// when a batch crosses that limit; on either side they do not depend on the batch.
#pragma once

#include "amx/tiles.h"

namespace {

constexpr int64_t kSmallRows = 4;
constexpr int kTileRowsAmx = 16;   // rows of w, or of x, in one tile
constexpr int kTileInner = 32;     // bfloat16 elements in one tile row
constexpr int64_t kTileBytes = 1024;
constexpr int kBlock = 2 * kTileRowsAmx;  // a block of outputs is 2 x 2 tiles

inline int64_t inner_tiles(int64_t inner) { return (inner + kTileInner - 1) / kTileInner; }

// x is packed as [rows / 16][inner / 32][16 pairs of k][16 rows][2], padded with zeros.
inline int64_t pack_tasks(int64_t rows) { return (rows + kTileRowsAmx - 1) / kTileRowsAmx; }

inline size_t pack_bytes(int64_t rows, int64_t inner) {
  return rows <= kSmallRows ? 0 : static_cast<size_t>(pack_tasks(rows) * inner_tiles(inner) * kTileBytes);
}

void pack(const char* x, int64_t ldx, int64_t rows, int64_t inner, char* packed, int64_t task) {
  const int64_t first = task * kTileRowsAmx;
  const int64_t count = rows - first < kTileRowsAmx ? rows - first : kTileRowsAmx;
  char* tile = packed + task * inner_tiles(inner) * kTileBytes;
  for (int64_t k = 0; k < inner; k += kTileInner, tile += kTileBytes) {
    const size_t bytes = static_cast<size_t>(inner - k < kTileInner ? inner - k : kTileInner) * sizeof(BFloat16);
    uint32_t pairs[kTileRowsAmx][kTileRowsAmx] = {};  // [row][pair]
    for (int64_t row = 0; row < count; ++row) std::memcpy(pairs[row], at<BFloat16>(x, (first + row) * ldx + k), bytes);
    uint32_t turned[kTileRowsAmx][kTileRowsAmx];
    for (int pair = 0; pair < kTileRowsAmx; ++pair) {
      for (int row = 0; row < kTileRowsAmx; ++row) turned[pair][row] = pairs[row][pair];
    }
    std::memcpy(tile, turned, sizeof(turned));
  }
}

// Rows [n, n1) of w as tiles of 16; rows and elements past the end are read as zeros.
template <int kTile>
inline void load_weights(const char* w, int64_t ldw, int64_t n, int64_t n1, int64_t k, int64_t inner) {
  if (n + kTileRowsAmx <= n1 && k + kTileInner <= inner) {
    tile_load<kTile>(at<BFloat16>(w, n * ldw + k), ldw * static_cast<int64_t>(sizeof(BFloat16)));
    return;
  }
  alignas(64) BFloat16 padded[kTileRowsAmx][kTileInner] = {};
  const size_t bytes = static_cast<size_t>(inner - k < kTileInner ? inner - k : kTileInner) * sizeof(BFloat16);
  for (int64_t row = n; row < n1 && row < n + kTileRowsAmx; ++row) {
    std::memcpy(padded[row - n], at<BFloat16>(w, row * ldw + k), bytes);
  }
  tile_load<kTile>(padded, sizeof(padded[0]));
}

// Tile kTile holds sums[n][m]; writes them transposed to out[m][n], kTileCols apart.
template <int kTile>
inline void store_transposed(float* out) {
  alignas(64) float block[kTileRowsAmx][kTileRowsAmx];
  tile_store<kTile>(block, sizeof(block[0]));
  for (int m = 0; m < kTileRowsAmx; ++m) {
    for (int n = 0; n < kTileRowsAmx; ++n) out[m * kTileCols + n] = block[n][m];
  }
}

// Sums of the block at rows m.. of x (packed) and n.. of w, into sums[kBlock][kTileCols].
inline void block_sums(const char* packed, const char* w, int64_t ldw, const Tile& block, int64_t rows, int64_t inner,
                       float* sums) {
  const int64_t strip = inner_tiles(inner) * kTileBytes;
  const char* x0 = packed + block.m0 / kTileRowsAmx * strip;
  // The last strip may be alone; its partner's sums are then computed from it again and dropped.
  const char* x1 = block.m0 + kTileRowsAmx < rows ? x0 + strip : x0;
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  for (int64_t k = 0; k < inner; k += kTileInner) {
    const int64_t offset = k / kTileInner * kTileBytes;
    load_weights<4>(w, ldw, block.n0, block.n1, k, inner);
    load_weights<5>(w, ldw, block.n0 + kTileRowsAmx, block.n1, k, inner);
    tile_load<6>(x0 + offset, 64);
    tile_load<7>(x1 + offset, 64);
    tile_dot_bf16<0, 4, 6>();
    tile_dot_bf16<1, 5, 6>();
    tile_dot_bf16<2, 4, 7>();
    tile_dot_bf16<3, 5, 7>();
  }
  store_transposed<0>(sums);
  store_transposed<1>(sums + kTileRowsAmx);
  store_transposed<2>(sums + kTileRowsAmx * kTileCols);
  store_transposed<3>(sums + kTileRowsAmx * kTileCols + kTileRowsAmx);
}

// Calls body(block) for pieces of at most kBlock x kBlock; tile.m0 is a multiple of 16.
template <class Body>
inline void for_blocks(const Tile& tile, Body body) {
  for (int64_t n = tile.n0; n < tile.n1; n += kBlock) {
    const int64_t n1 = n + kBlock < tile.n1 ? n + kBlock : tile.n1;
    for (int64_t m = tile.m0; m < tile.m1; m += kBlock) {
      body(Tile{tile.weight, m, m + kBlock < tile.m1 ? m + kBlock : tile.m1, n, n1});
    }
  }
}

void linear_amx(const LinearArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return linear<BFloat16>(args, tile);
  const TileScope scope;
  alignas(64) float sums[kBlock * kTileCols];
  for_blocks(tile, [&](const Tile& block) {
    block_sums(args.packed, args.w[tile.weight], args.ldw[tile.weight], block, args.rows, args.inner, sums);
    store_linear<BFloat16>(args, block, sums);
  });
}

void gate_up_amx(const GateUpArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return gate_up<BFloat16>(args, tile);
  const TileScope scope;
  alignas(64) float gate[kBlock * kTileCols];
  alignas(64) float up[kBlock * kTileCols];
  for_blocks(tile, [&](const Tile& block) {
    block_sums(args.packed, args.gate, args.ldgate, block, args.rows, args.inner, gate);
    block_sums(args.packed, args.up, args.ldup, block, args.rows, args.inner, up);
    store_gate_up<BFloat16>(args, block, gate, up);
  });
}

// The AVX-512 kernels with the bfloat16 products on tiles.
inline KernelTable amx_kernel_table() {
  KernelTable table = kernel_table("amx");
  ElementKernels& kernels = table.by_dtype[2];  // DType::kBFloat16
  kernels.linear = linear_amx;
  kernels.gate_up = gate_up_amx;
  kernels.pack_bytes = pack_bytes;
  kernels.pack_tasks = pack_tasks;
  kernels.pack = pack;
  return table;
}

}  // namespace
