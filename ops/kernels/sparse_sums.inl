// SPDX-License-Identifier: Apache-2.0
// What products of few rows of x with compressed weights have in common, whichever way weights are expanded: tiles are read in the
// order of memory, and each output has a vector of sums for each row in the first-level cache.
#pragma once

namespace {

using vmo::kSparseCols;
using vmo::kSparseSumRows;
using vmo::kSparseWord;
using vmo::SparseSums;

constexpr int kSumVectors = vmo::sparse_sum_cols(kSparseSumRows) * kSparseSumRows;
static_assert(vmo::sparse_sum_cols(1) <= kSumVectors && vmo::sparse_sum_cols(3) * 3 <= kSumVectors);
constexpr int kLine = 64;

// Where SparseSums wants the sum of column n of row m of x.
inline int32_t* sum_at(const SparseSums& args, int n, int m) {
  return args.sums + (n / kLine * args.rows + m) * kLine + n % kLine;
}

// Calls add(tile, cursor) for all tiles that are not zero.
template <class Add>
inline void for_tiles(const SparseSums& args, Add add) {
  for (int64_t tile = 0; tile < args.tiles; ++tile) {
    SparseCursor* cursor = args.cursors + tile;
    if (cursor->coding != TileCoding::kZero) add(tile, cursor);
  }
}

}  // namespace
