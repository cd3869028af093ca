// SPDX-License-Identifier: Apache-2.0
// What is left to do with the sums of a block, in small parts while the next block is multiplied: a product keeps the
// tile unit busy for sixteen cycles, in which the rest of a core would have nothing to do.
#pragma once

#include "amx/block.inl"

namespace {

// Sums of blocks with kMatrices matrices on their way to the output: turned, and given row by row to
// store(row, sums of the first matrix, sums of the last), `row` being a part of one row.
template <class Sum, int kMatrices, class Store>
class PendingBlock {
 public:
  explicit PendingBlock(Store store) : store_(store) {}

  // Takes the sums of a matrix from the tiles. What the block before had is finished.
  void take(int matrix, const Tile& block) {
    finish();
    raw_[matrix].take(block);
  }
  // All matrices have been taken; the work will be divided among `steps`.
  void start(const Tile& block, int64_t steps) {
    block_ = block;
    left_ = kMatrices * tiles_of(block) + static_cast<int>(block.m1 - block.m0);
    share_ = steps > 0 ? static_cast<int>((left_ + steps - 1) / steps) : left_;
  }
  void advance() {
    for (int i = 0; i < share_ && left_ > 0; ++i) run(--left_);
  }
  void finish() {
    while (left_ > 0) run(--left_);
  }

 private:
  // Part 0 is the last one.
  void run(int part) {
    const int rows = static_cast<int>(block_.m1 - block_.m0);
    if (part >= rows) {
      const int tile = part - rows;
      return raw_[tile % kMatrices].turn(tile / kMatrices, sums_[tile % kMatrices]);
    }
    const Tile row{block_.weight, block_.m0 + part, block_.m0 + part + 1, block_.n0, block_.n1};
    store_(row, sums_[0] + part * kTileCols, sums_[kMatrices - 1] + part * kTileCols);
  }

  TileSums<Sum> raw_[kMatrices];
  alignas(64) Sum sums_[kMatrices][kBlock * kTileCols];
  Tile block_{};
  int left_ = 0, share_ = 0;
  Store store_;
};

}  // namespace
