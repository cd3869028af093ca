// SPDX-License-Identifier: Apache-2.0
// bfloat16 and int8 matrix products on AMX tiles, for more rows than kSmallRows. bfloat16 sums differ in order from the
// small-row path, so a row's bits may change when a batch crosses that limit; on either side they do not depend on the
// batch.
#pragma once

#include "amx/pending.inl"

namespace {

constexpr int64_t kSmallRows = 4;

template <class T>
inline int64_t steps_along(int64_t inner) {
  return strip_bytes<T>(inner) / kStepBytes;
}

// Products of one weight with all blocks of a tile.
template <class T, class Args, class Store>
inline void multiply_tile(const Args& args, const Tile& tile, Store store) {
  const TileScope scope;
  PendingBlock<typename Dot<T>::Out, 1, Store> pending(store);
  const int i = tile.weight;
  for_parts<kBlock, kBlock>(tile, [&](const Tile& block) {
    const int64_t ahead = rows_ahead<T>(tile, block, args.inner);
    multiply_block<T>(args.packed, args.w[i], args.ldw[i], block, args.inner, ahead, [&] { pending.advance(); });
    pending.take(0, block);
    pending.start(block, steps_along<T>(args.inner));
  });
  pending.finish();
}

void linear_amx(const LinearArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return linear<BFloat16>(args, tile);
  multiply_tile<BFloat16>(args, tile, [&](const Tile& row, const float* sums, const float*) {
    store_linear<BFloat16>(args, row, sums);
  });
}

template <class T>
void int8_linear_amx(const Int8LinearArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return int8_linear<T>(args, tile);
  multiply_tile<int8_t>(args, tile, [&](const Tile& row, const int32_t* sums, const int32_t*) {
    store_dequantized<T>(args, row, sums);
  });
}

void gate_up_amx(const GateUpArgs& args, const Tile& tile) {
  if (args.packed == nullptr) return gate_up<BFloat16>(args, tile);
  const TileScope scope;
  const auto store = [&](const Tile& row, const float* gate, const float* up) {
    store_gate_up<BFloat16>(args, row, gate, up);
  };
  PendingBlock<float, 2, decltype(store)> pending(store);
  for_parts<kBlock, kBlock>(tile, [&](const Tile& block) {
    const int64_t ahead = rows_ahead<BFloat16>(tile, block, args.inner);
    const auto advance = [&] { pending.advance(); };
    multiply_block<BFloat16>(args.packed, args.gate, args.ldgate, block, args.inner, ahead, advance);
    pending.take(0, block);
    multiply_block<BFloat16>(args.packed, args.up, args.ldup, block, args.inner, ahead, [] {});
    pending.take(1, block);
    pending.start(block, steps_along<BFloat16>(args.inner));
  });
  pending.finish();
}

}  // namespace
