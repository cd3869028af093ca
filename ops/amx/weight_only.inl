// SPDX-License-Identifier: Apache-2.0
// Weights of int8 or int4 codes on AMX tiles, for many rows. Codes and their offsets are bfloat16 without rounding: they are
// widened a few hundred inputs at a time and multiplied with packed rows; sums of a group, times its scale, are added up.
#pragma once

#include "amx/parts.inl"

namespace {

constexpr int kWidened = 512;  // inputs at once: with all rows' sums in the second-level cache
constexpr int kSumBlocks = 8;  // blocks of rows that one widening serves
constexpr int kAhead = 1024;   // codes of a row that are fetched before they are widened

// Sum of a code and an offset have eight significant bits.
inline bool whole_offsets(const WeightOnlyArgs& args, const Tile& tile) {
  constexpr float kLargest = 128.0f;
  if (args.offset[tile.weight] == nullptr) return true;
  const Vec largest = Vec::set1(kLargest);
  for (int64_t i = tile.n0 * args.groups; i < tile.n1 * args.groups; i += Vec::kLanes) {
    const Vec offset = load_some(at<float>(args.offset[tile.weight], i), tile.n1 * args.groups - i);
    const __mmask16 whole = _mm512_cmp_ps_mask(round_nearest(offset).v, offset.v, _CMP_EQ_OQ);
    if ((whole & _mm512_cmp_ps_mask(abs(offset).v, largest.v, _CMP_LE_OQ)) != 0xffff) return false;
  }
  return true;
}

inline void store_sum(__m512bh codes, Vec offset, BFloat16* out) {
  const auto bits = reinterpret_cast<__m512i>(codes);
  const Vec first = Vec{widen(out, _mm512_castsi512_si256(bits))} + offset;
  const Vec second = Vec{widen(out, _mm512_extracti64x4_epi64(bits, 1))} + offset;
  _mm512_storeu_si512(out, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v)));
}

// Fetches the block kAhead codes behind element k of a row of codes, or as far into the row 32 further down.
template <class Code>
inline void fetch_ahead(const CodeRow<Code>& row, const WeightOnlyArgs& args, int64_t ldw, int64_t k) {
  const int64_t next = k + kAhead, below = next < args.inner ? 0 : kBlock * ldw;
  const auto* codes = reinterpret_cast<const char*>(block_at(row.codes, next < args.inner ? next : next - args.inner));
  __builtin_prefetch(codes + below, 0, kSecondLevelCache);
}

// Codes [k, k + count) of an output, k being a multiple of a block, and the offset of their group; up to a whole block.
template <class Code>
inline void widen_codes(const CodeRow<Code>& row, int64_t group, int64_t k, int count, BFloat16* out) {
  const Vec offset = Vec::set1(row.offset == nullptr ? 0.0f : vmo::load_unaligned<float>(row.offset + group));
  for (int i = 0; i < count; i += kCodeBlock) {
    int8_t padded[kCodeBlock] = {};
    const Code* block = block_at(row.codes, k + i);
    if (count - i < kCodeBlock) block = last_block(block, count - i, padded);
    __m512bh low, high;
    CodeDot<BFloat16>::load_codes(block, 0, &low, &high);
    if (row.offset == nullptr) {
      _mm512_storeu_si512(out + i, reinterpret_cast<__m512i>(low));
      _mm512_storeu_si512(out + i + kHalfBlock, reinterpret_cast<__m512i>(high));
    } else {
      store_sum(low, offset, out + i);
      store_sum(high, offset, out + i + kHalfBlock);
    }
  }
}

// Up to 32 outputs of up to kSumBlocks blocks of rows.
template <class T, class Code>
class CodeProduct {
 public:
  CodeProduct(const WeightOnlyArgs& args, const Tile& tile) : args_(args), tile_(tile) {
    blocks_ = static_cast<int>((tile.m1 - tile.m0 + kBlock - 1) / kBlock);
    for (int i = 0; i < blocks_; ++i) std::memset(totals_[i].tiles, 0, sizeof(totals_[i].tiles));
    if (tile.n1 - tile.n0 < kBlock) std::memset(codes_, 0, sizeof(codes_));
  }

  void run() {
    for (int64_t group = 0, k = 0; k < args_.inner; ++group) {
      const int64_t end = args_.inner - k < args_.group ? args_.inner : k + args_.group;
      for (; k < end; k += kWidened) add(group, k, static_cast<int>(end - k < kWidened ? end - k : kWidened));
      k = end;
    }
    for (int i = 0; i < blocks_; ++i) store(i);
  }

 private:
  Tile block(int i) const {
    const int64_t m = tile_.m0 + i * kBlock;
    return {tile_.weight, m, tile_.m1 - m < kBlock ? tile_.m1 : m + kBlock, tile_.n0, tile_.n1};
  }

  // Inputs [k, k + count), all of one group.
  void add(int64_t group, int64_t k, int count) {
    float scale[kBlock] = {};
    for (int64_t n = tile_.n0; n < tile_.n1; ++n) {
      const CodeRow<Code> row = code_row<Code>(args_, tile_.weight, n);
      for (int i = 0; i < count; i += kCodeBlock) fetch_ahead(row, args_, args_.ldw[tile_.weight], k + i);
      widen_codes(row, group, k, count, codes_[n - tile_.n0]);
      scale[n - tile_.n0] = vmo::load_unaligned<float>(row.scale + group);
    }
    const int64_t part = strip_bytes<BFloat16>(args_.inner), strip = kParts<T> * part;
    for (int i = 0; i < blocks_; ++i) {
      const Tile rows = block(i);
      const char* x = args_.packed + rows.m0 / kTileRowsAmx * strip + k / kStepInner<BFloat16> * kStepBytes;
      zero_sums();
      add_products<T>(has_two_strips(rows), {x, strip, part}, codes_[0], kWidened, count);
      sums_.take(rows);
      for (int tile = 0; tile < tiles_of(rows); ++tile) add_scaled(scale + tile % 2 * kTileRowsAmx, tile, &totals_[i]);
    }
  }

  void add_scaled(const float* scale, int tile, TileSums<float>* totals) const {
    for (int n = 0; n < kTileRowsAmx; ++n) {
      float* total = totals->tiles[tile][n];
      fma(Vec::load(sums_.tiles[tile][n]), Vec::set1(scale[n]), Vec::load(total)).store(total);
    }
  }

  void store(int i) {
    alignas(64) float turned[kBlock * kTileCols];
    const Tile rows = block(i);
    for (int tile = 0; tile < tiles_of(rows); ++tile) totals_[i].turn(tile, turned);
    store_linear<T>(args_, rows, turned);
  }

  const WeightOnlyArgs& args_;
  const Tile tile_;
  int blocks_;
  alignas(64) BFloat16 codes_[kBlock][kWidened];
  TileSums<float> sums_, totals_[kSumBlocks];
};

template <class T, class Code>
void weight_only_amx(const WeightOnlyArgs& args, const Tile& tile) {
  if (args.packed == nullptr || !whole_offsets(args, tile)) return weight_only<T, Code>(args, tile);
  const TileScope scope;
  for_parts<kSumBlocks * kBlock, kBlock>(tile, [&](const Tile& part) { CodeProduct<T, Code>(args, part).run(); });
}

template <class T>
inline void set_weight_only(ElementKernels* kernels, bool (*packs)(int64_t)) {
  kernels->int8_weight = weight_only_amx<T, int8_t>;
  kernels->int4_weight = weight_only_amx<T, Int4Pair>;
  kernels->code_packing = {packs, parts_bytes<T>, pack_tasks, pack_parts<T>};
}

}  // namespace
