// SPDX-License-Identifier: Apache-2.0
// Matrix products on packed rows.
#pragma once

#include "avx512_bf16/strips.h"
#include "avx512_bf16/turn.h"

namespace {

// Elements of a row in one step along K, and in one lane.
template <class T>
constexpr int kStepInner = 64 / sizeof(T);
template <class T>
constexpr int kLaneInner = 4 / sizeof(T);

template <class T>
inline int64_t strip_bytes(int64_t inner) {
  return (inner + kStepInner<T> - 1) / kStepInner<T> * kStepBytes;
}

inline int64_t pack_tasks(int64_t rows) { return (rows + kStripRows - 1) / kStripRows; }

template <class T>
inline size_t pack_bytes(int64_t rows, int64_t inner) {
  return static_cast<size_t>(pack_tasks(rows) * strip_bytes<T>(inner));
}

// A step of one row, of which `count` elements exist; the others are zeros.
template <class T>
inline __m512i load_step(const T* p, int64_t count) {
  if (count >= kStepInner<T>) return _mm512_loadu_si512(p);
  const uint64_t mask = (uint64_t{1} << (count * static_cast<int64_t>(sizeof(T)))) - 1;
  return _mm512_maskz_loadu_epi8(mask, p);
}

// Rows, load(row, k) being the step at element k of one, to the steps of a strip.
template <class T, class Load>
inline void pack_strip(int64_t inner, char* step, Load load) {
  for (int64_t k = 0; k < inner; k += kStepInner<T>, step += kStepBytes) {
    for_turned([&](int row) { return load(row, k); },
               [&](int lane, __m512i lanes) { _mm512_storeu_si512(step + lane * kLaneBytes, lanes); });
  }
}

// Strip `task` of x, each byte xor kFlip.
template <class T, int kFlip>
void pack(const char* x, int64_t ldx, int64_t rows, int64_t inner, char* packed, int64_t task) {
  const int64_t first = task * kStripRows;
  const int64_t count = rows - first < kStripRows ? rows - first : kStripRows;
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(kFlip));
  pack_strip<T>(inner, packed + task * strip_bytes<T>(inner), [&](int row, int64_t k) {
    const __m512i bytes = row < count ? load_step(at<T>(x, (first + row) * ldx + k), inner - k) : _mm512_setzero_si512();
    return kFlip == 0 ? bytes : _mm512_xor_si512(bytes, flip);
  });
}

template <class T, int kFlip = 0>
inline Packing packing(bool (*packs)(int64_t)) {
  return {packs, pack_bytes<T>, pack_tasks, pack<T, kFlip>};
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

// Replaces the int8 products, by the type of their output.
using Int8Linear = void (*)(const Int8LinearArgs& args, const Tile& tile);
inline void set_int8(KernelTable* table, Int8Linear to_float, Int8Linear to_half, Int8Linear to_bfloat16,
                     const Packing& packing) {
  table->by_dtype[0].int8_linear = to_float;
  table->by_dtype[1].int8_linear = to_half;
  table->by_dtype[2].int8_linear = to_bfloat16;
  table->int8_packing = packing;
}

// Replaces the bfloat16 products; they get packed rows where `packs` says so.
inline void set_packed(KernelTable* table, void (*linear)(const LinearArgs&, const Tile&),
                       void (*gate_up)(const GateUpArgs&, const Tile&), bool (*packs)(int64_t)) {
  ElementKernels& kernels = table->by_dtype[2];  // DType::kBFloat16
  kernels.linear = linear;
  kernels.gate_up = gate_up;
  kernels.packing = packing<BFloat16>(packs);
}

}  // namespace
