// SPDX-License-Identifier: Apache-2.0
// Matrix products of many rows on strips (strips.inl). bfloat16 sums differ in order from those of few rows, so a row's
// bits depend on which of the two ways its batch takes, and on nothing else; int8 sums are exact.
#pragma once

#include "avx512_bf16/strips.inl"

namespace {

// One strip, however many rows it holds, takes the time of 12 rows of dot products, two together that of 20.
inline bool packs(int64_t rows) { return rows > 12 && (rows <= kStripRows || rows > 20); }
inline bool packs_int8(int64_t rows) { return rows > 8; }

template <class Args>
inline auto sums_of_parts(const Args& args) {
  return [&args](const char* w, int64_t ldw, const Tile& part, bool first, float* sums) {
    part_sums<BFloat16>(args.packed, w, ldw, args.inner, part, first, sums);
  };
}

void linear_strips(const LinearArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return linear<BFloat16>(args, tile);
  linear_packed<kTileRows, kTileCols>(args, tile, sums_of_parts(args));
}

void gate_up_strips(const GateUpArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return gate_up<BFloat16>(args, tile);
  gate_up_packed<kTileRows, kTileCols>(args, tile, sums_of_parts(args));
}

template <class T>
void int8_linear_strips(const Int8LinearArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return int8_linear<T>(args, tile);
  alignas(64) int32_t sums[kTileRows * kTileCols];
  for_parts<kTileRows, kTileCols>(tile, [&](const Tile& part) {
    const int i = part.weight;
    part_sums<int8_t>(args.packed, args.w[i], args.ldw[i], args.inner, part, part.m0 == tile.m0, sums);
    store_dequantized<T>(args, part, sums);
  });
}

// The AVX-512 kernels with bfloat16 and int8 products of many rows on strips.
inline KernelTable strip_kernel_table() {
  KernelTable table = kernel_table("avx512_bf16");
  set_packed(&table, linear_strips, gate_up_strips, packs);
  set_int8(&table, int8_linear_strips<float>, int8_linear_strips<Half>, int8_linear_strips<BFloat16>,
           packing<int8_t, 0x80>(packs_int8));
  return table;
}

}  // namespace
