// SPDX-License-Identifier: Apache-2.0
// Linear layers on floats and weights of int8 or int4 codes, which are widened in registers: sums of a group of codes,
// times the group's scale, added up lane by lane.
#pragma once

namespace {

// Rows that one widening serves: their sums of a group and in all fit the registers, or nearly so.
template <class T>
constexpr int kCodeRows = Dot<T>::kMaxRows < 4 ? Dot<T>::kMaxRows : 4;

// Codes of one output, and of each group the scale and what is added to codes before (null: nothing).
template <class Code>
struct CodeRow {
  const Code* codes;
  const float* scale;
  const float* offset;
};

// Where element k, the first of a block, is.
inline const int8_t* block_at(const int8_t* row, int64_t k) { return row + k; }
inline const Int4Pair* block_at(const Int4Pair* row, int64_t k) { return row + k / 2; }

// The last block of a row in `padded`, zeros behind its end; int4 rows have whole blocks.
inline const int8_t* last_block(const int8_t* block, int count, int8_t (&padded)[kCodeBlock]) {
  std::memcpy(padded, block, static_cast<size_t>(count));
  return padded;
}
inline const Int4Pair* last_block(const Int4Pair* block, int, int8_t (&)[kCodeBlock]) { return block; }

// The sums of one group so far.
template <class D, int kRows, bool kOffset>
struct GroupSums {
  Vec products[kRows][kDotCols];
  Vec rows[kRows];  // of x alone

  GroupSums() {
    for (auto& row : products) {
      for (auto& sum : row) sum = Vec::zero();
    }
    for (auto& sum : rows) sum = Vec::zero();
  }

  // Adds a block: elements [k, k + kCodeBlock) of the rows of x times `blocks`.
  template <class T, class Code>
  void add(const T* const* x, int64_t k, const Code* const* blocks) {
    for (int i = 0; i < kHalfBlock; i += D::kStep) {
      typename D::Chunk first[kRows], second[kRows];
      for (int m = 0; m < kRows; ++m) {
        first[m] = D::load(x[m] + k + i);
        second[m] = D::load(x[m] + k + kHalfBlock + i);
        if constexpr (kOffset) rows[m] = D::mac(D::mac(rows[m], first[m], D::one()), second[m], D::one());
      }
      for (int n = 0; n < kDotCols; ++n) {
        typename D::Chunk low, high;
        D::load_codes(blocks[n], i, &low, &high);
        for (int m = 0; m < kRows; ++m) {
          products[m][n] = D::mac(D::mac(products[m][n], first[m], low), second[m], high);
        }
      }
    }
  }

  // The last block of a row, which has `count` elements.
  template <class T, class Code>
  void add_last(const T* const* x, int64_t k, const Code* const* blocks, int count) {
    T lanes[kRows][kCodeBlock] = {};
    int8_t padded[kDotCols][kCodeBlock] = {};
    const T* rows_of_x[kRows];
    const Code* whole[kDotCols];
    for (int m = 0; m < kRows; ++m) {
      std::memcpy(lanes[m], x[m] + k, static_cast<size_t>(count) * sizeof(T));
      rows_of_x[m] = lanes[m];
    }
    for (int n = 0; n < kDotCols; ++n) whole[n] = last_block(blocks[n], count, padded[n]);
    add(rows_of_x, 0, whole);
  }

  // totals += (products + offset * rows) * scale, of group g.
  template <class Code>
  void scale_into(const CodeRow<Code>* w, int64_t g, Vec (&totals)[kRows][kDotCols]) const {
    for (int n = 0; n < kDotCols; ++n) {
      const Vec scale = Vec::set1(vmo::load_unaligned<float>(w[n].scale + g));
      for (int m = 0; m < kRows; ++m) {
        Vec sum = products[m][n];
        if constexpr (kOffset) sum = fma(rows[m], Vec::set1(vmo::load_unaligned<float>(w[n].offset + g)), sum);
        totals[m][n] = fma(sum, scale, totals[m][n]);
      }
    }
  }
};

// kRows x kDotCols outputs. What lies `prefetch` bytes ahead of the codes goes to the second-level cache (0: nothing).
template <bool kOffset, int kRows, class T, class Code>
inline void code_block(const T* const* x, const CodeRow<Code>* w, int64_t inner, int64_t group, int64_t prefetch,
                       float (*out)[kDotCols]) {
  Vec totals[kRows][kDotCols];
  for (auto& row : totals) {
    for (auto& total : row) total = Vec::zero();
  }
  int64_t k = 0;
  for (int64_t g = 0; k < inner; ++g) {
    const int64_t end = inner - k < group ? inner : k + group;
    GroupSums<CodeDot<T>, kRows, kOffset> sums;
    for (; k < end; k += kCodeBlock) {
      const Code* blocks[kDotCols];
      for (int n = 0; n < kDotCols; ++n) {
        blocks[n] = block_at(w[n].codes, k);
        if (prefetch != 0) {
          __builtin_prefetch(reinterpret_cast<const char*>(blocks[n]) + prefetch, 0, kSecondLevelCache);
        }
      }
      if (k + kCodeBlock <= end) {
        sums.add(x, k, blocks);
      } else {
        sums.add_last(x, k, blocks, static_cast<int>(end - k));
      }
    }
    k = end;
    sums.scale_into(w, g, totals);
  }
  reduce_block(totals, out);
}

// Chooses the block for `rows` (1 .. kCodeRows<T>) rows of x.
template <class T, class Code, int kRows = kCodeRows<T>>
inline void code_rows(int rows, const T* const* x, const CodeRow<Code>* w, const WeightOnlyArgs& args, int64_t prefetch,
                      float (*out)[kDotCols]) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return code_rows<T, Code, kRows - 1>(rows, x, w, args, prefetch, out);
  }
  if (w->offset != nullptr) {
    code_block<true, kRows>(x, w, args.inner, args.group, prefetch, out);
  } else {
    code_block<false, kRows>(x, w, args.inner, args.group, prefetch, out);
  }
}

template <class Code>
inline CodeRow<Code> code_row(const WeightOnlyArgs& args, int weight, int64_t n) {
  const int64_t groups = n * args.groups;
  const char* offset = args.offset[weight];
  return {reinterpret_cast<const Code*>(args.w[weight] + n * args.ldw[weight]), at<float>(args.scale[weight], groups),
          offset == nullptr ? nullptr : at<float>(offset, groups)};
}

template <class T, class Code>
inline void code_product(const WeightOnlyArgs& args, const Tile& tile, bool stream, float* sums) {
  constexpr int kStep = kCodeRows<T>;
  const int64_t prefetch = stream ? prefetch_distance<int8_t>(args.ldw[tile.weight]) : 0;
  for (int64_t m = tile.m0; m < tile.m1; m += kStep) {
    const int count = static_cast<int>(tile.m1 - m < kStep ? tile.m1 - m : kStep);
    const T* x[kStep];
    row_pointers(args.x, args.ldx, m, count, x);
    for (int64_t n = tile.n0; n < tile.n1; n += kDotCols) {
      // A partial block repeats its last row; the copies are dropped below.
      CodeRow<Code> w[kDotCols];
      for (int j = 0; j < kDotCols; ++j) w[j] = code_row<Code>(args, tile.weight, n + j < tile.n1 ? n + j : tile.n1 - 1);
      float out[kStep][kDotCols];
      code_rows(count, x, w, args, m == tile.m0 ? prefetch : 0, out);
      const size_t bytes = static_cast<size_t>(tile.n1 - n < kDotCols ? tile.n1 - n : kDotCols) * sizeof(float);
      float* row = sums + (m - tile.m0) * kTileCols + (n - tile.n0);
      for (int i = 0; i < count; ++i) std::memcpy(row + i * kTileCols, out[i], bytes);
    }
  }
}

template <class T, class Code>
void weight_only(const WeightOnlyArgs& args, const Tile& tile) {
  alignas(64) float sums[kTileRows * kTileCols];
  for_parts<kTileRows, kTileCols>(tile, [&](const Tile& part) {
    code_product<T, Code>(args, part, part.m0 == tile.m0, sums);
    store_linear<T>(args, part, sums);
  });
}

}  // namespace
