// SPDX-License-Identifier: Apache-2.0
// Entries of the index of compressed weights.
#include "sparse_tiles.h"

#include <algorithm>

#include "check.h"

namespace vmo {
namespace {

Status misfit(const char* op, const SparseTiles& tiles, int64_t i, const SparseTile& tile, int64_t needed) {
  return fail(op, "tile %lld takes bytes %lld to %lld of the stream; expected at most %lld (its %lld bytes end with 64 of guard)",
              static_cast<long long>(i), static_cast<long long>(tile.offset),
              static_cast<long long>(tile.offset + needed), static_cast<long long>(tiles.bytes - kSparseUnit),
              static_cast<long long>(tiles.bytes));
}

Status check_entry(const char* op, const SparseTiles& tiles, int64_t i, const SparseTile& tile) {
  if (tile.coding > TileCoding::kBitmap) {
    return fail(op, "tile %lld has the unknown encoding %d; expected 0 (zero), 1 (dense) or 2 (bitmap)",
                static_cast<long long>(i), static_cast<int>(tile.coding));
  }
  if (tile.coding == TileCoding::kZero) return kOk;
  const int64_t needed = tile.coding == TileCoding::kDense ? tile.dense_bytes() : tile.mask_bytes();
  const int64_t most = tiles.bytes - kSparseUnit;
  return needed <= most && tile.offset <= most - needed ? kOk : misfit(op, tiles, i, tile, needed);
}

}  // namespace

SparseTile tile_extents(int64_t outputs, int64_t inputs, int64_t down, int64_t across) {
  const int64_t columns = std::min<int64_t>(kSparseCols, inputs - across * kSparseCols);
  SparseTile tile{};
  tile.rows = static_cast<int>(std::min<int64_t>(kSparseRows, outputs - down * kSparseRows));
  tile.words = static_cast<int>(tiles_along(columns, kSparseWord));
  tile.last_columns = static_cast<int>(columns - (tile.words - 1) * kSparseWord);
  return tile;
}

SparseTile tile_at(const SparseTiles& tiles, int64_t down, int64_t across) {
  const char* entry_at = tiles.index + (down * tiles.across + across) * kSparseEntryBytes;
  const auto entry = load_unaligned<uint64_t>(entry_at);
  SparseTile tile = tile_extents(tiles.outputs, tiles.inputs, down, across);
  tile.length = static_cast<int64_t>(entry & ((1u << kSparseLengthBits) - 1)) * kSparseUnit;
  tile.coding = static_cast<TileCoding>(entry >> kSparseLengthBits & ((1u << kSparseCodingBits) - 1));
  tile.offset = static_cast<int64_t>(entry >> (kSparseLengthBits + kSparseCodingBits)) * kSparseUnit;
  return tile;
}

Status open_tiles(const char* op, const TensorView& stream, const TensorView& index, int64_t outputs, int64_t inputs,
                  SparseTiles* out) {
  if (outputs < 0 || inputs < 1) {
    return fail(op, "a compressed weight has shape [%lld, %lld]; expected at least one input",
                static_cast<long long>(outputs), static_cast<long long>(inputs));
  }
  VMO_TRY(require_rank(op, "stream", stream, 1));
  const int64_t bytes = stream.shape[0];
  VMO_TRY(require_vector(op, "stream", stream, DType::kInt8, bytes));
  if (bytes < kSparseUnit || bytes % kSparseUnit != 0) {
    return fail(op, "the stream has %lld bytes; expected a multiple of 64, at least 64", static_cast<long long>(bytes));
  }
  *out = sparse_tiles(static_cast<const char*>(stream.data), static_cast<const char*>(index.data), bytes, outputs, inputs);
  int64_t index_bytes = 0;
  if (__builtin_mul_overflow(out->down, out->across, &index_bytes) ||
      __builtin_mul_overflow(index_bytes, kSparseEntryBytes, &index_bytes)) {
    return fail(op, "a compressed weight has shape [%lld, %lld]; the size of its index exceeds 64 bits",
                static_cast<long long>(outputs), static_cast<long long>(inputs));
  }
  VMO_TRY(require_vector(op, "index", index, DType::kInt8, index_bytes));
  for (int64_t down = 0, i = 0; down < out->down; ++down) {
    for (int64_t across = 0; across < out->across; ++across, ++i) {
      VMO_TRY(check_entry(op, *out, i, tile_at(*out, down, across)));
    }
  }
  return kOk;
}

SparseCursor tile_cursor(const SparseTiles& tiles, int64_t down, int64_t across) {
  const SparseTile tile = tile_at(tiles, down, across);
  const char* begin = tiles.stream + tile.offset;
  switch (tile.coding) {
    case TileCoding::kBitmap: return {tile.coding, tile.words, begin, begin + tile.mask_bytes(), tile.value_bytes()};
    case TileCoding::kDense: return {tile.coding, tile.words, begin, nullptr, 0};
    default: return {TileCoding::kZero, tile.words, nullptr, nullptr, 0};
  }
}

}  // namespace vmo
