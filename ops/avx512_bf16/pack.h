// SPDX-License-Identifier: Apache-2.0
// Matrix products on packed rows of bfloat16: strips of 16 rows, [rows / 16][inner / 32][16 pairs of k][16 rows][2],
// padded with zeros.
#pragma once

#include "avx512_bf16/turn.h"

namespace {

constexpr int kStripRows = 16;
constexpr int kStepInner = 32;        // elements of a row in one step along K
constexpr int64_t kPairBytes = 64;    // one pair of k of a strip
constexpr int64_t kStepBytes = 1024;  // one step of a strip

inline int64_t strip_bytes(int64_t inner) { return (inner + kStepInner - 1) / kStepInner * kStepBytes; }

inline int64_t pack_tasks(int64_t rows) { return (rows + kStripRows - 1) / kStripRows; }

inline size_t pack_bytes(int64_t rows, int64_t inner) {
  return static_cast<size_t>(pack_tasks(rows) * strip_bytes(inner));
}

// A step of one row, of which `count` elements exist; the others are zeros.
inline __m512i load_step(const BFloat16* p, int64_t count) {
  if (count >= kStepInner) return _mm512_loadu_si512(p);
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << count) - 1), p);
}

// Strip `task` of x.
void pack(const char* x, int64_t ldx, int64_t rows, int64_t inner, char* packed, int64_t task) {
  const int64_t first = task * kStripRows;
  const int64_t count = rows - first < kStripRows ? rows - first : kStripRows;
  char* step = packed + task * strip_bytes(inner);
  for (int64_t k = 0; k < inner; k += kStepInner, step += kStepBytes) {
    const auto load = [&](int row) {
      return row < count ? load_step(at<BFloat16>(x, (first + row) * ldx + k), inner - k) : _mm512_setzero_si512();
    };
    for_turned(load, [&](int pair, __m512i lanes) { _mm512_storeu_si512(step + pair * kPairBytes, lanes); });
  }
}

// Calls sums_of(w, ldw, part, first, sums) for every part of at most kRows x kCols of the tile and stores the outputs;
// `first`: the tile has not read these weights before.
template <int kRows, int kCols, class SumsOf>
inline void linear_packed(const LinearArgs& args, const Tile& tile, SumsOf sums_of) {
  alignas(64) float sums[kRows * kTileCols];
  for_parts<kRows, kCols>(tile, [&](const Tile& part) {
    sums_of(args.w[part.weight], args.ldw[part.weight], part, part.m0 == tile.m0, sums);
    store_linear<BFloat16>(args, part, sums);
  });
}

template <int kRows, int kCols, class SumsOf>
inline void gate_up_packed(const GateUpArgs& args, const Tile& tile, SumsOf sums_of) {
  alignas(64) float gate[kRows * kTileCols];
  alignas(64) float up[kRows * kTileCols];
  for_parts<kRows, kCols>(tile, [&](const Tile& part) {
    sums_of(args.gate, args.ldgate, part, part.m0 == tile.m0, gate);
    sums_of(args.up, args.ldup, part, part.m0 == tile.m0, up);
    store_gate_up<BFloat16>(args, part, gate, up);
  });
}

// Replaces the bfloat16 products; they get packed rows where `packs` says so.
inline void set_packed(KernelTable* table, void (*linear)(const LinearArgs&, const Tile&),
                       void (*gate_up)(const GateUpArgs&, const Tile&), bool (*packs)(int64_t)) {
  ElementKernels& kernels = table->by_dtype[2];  // DType::kBFloat16
  kernels.linear = linear;
  kernels.gate_up = gate_up;
  kernels.packs = packs;
  kernels.pack_bytes = pack_bytes;
  kernels.pack_tasks = pack_tasks;
  kernels.pack = pack;
}

}  // namespace
