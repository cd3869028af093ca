// SPDX-License-Identifier: Apache-2.0
// The tiles of a compressed weight (docs/sparse_quant_format.md): where each lies in the stream.
#pragma once

#include "vmo/error.h"
#include "vmo/kernel_table.h"
#include "vmo/tensor_view.h"

namespace vmo {

constexpr int64_t kSparseUnit = 64;        // bytes: offsets and lengths count these
constexpr int64_t kSparseEntryBytes = 8;   // of the index
constexpr int kSparseLengthBits = 13, kSparseCodingBits = 3;

struct SparseTiles {
  const char* stream;
  const char* index;
  int64_t bytes;  // of the stream
  int64_t outputs, inputs;
  int64_t down, across;  // tiles along the outputs, and along the inputs
  int64_t count() const { return down * across; }
};

// One entry of the index, and the extents of its tile.
struct SparseTile {
  TileCoding coding;
  int64_t offset, length;  // bytes
  int rows, words;
  int last_columns;  // of the last word
  int64_t mask_bytes() const { return (rows * words * int64_t{8} + kSparseUnit - 1) / kSparseUnit * kSparseUnit; }
  int value_bytes() const { return static_cast<int>((length - mask_bytes()) / rows); }  // of a row of a bitmap, about
  int64_t dense_bytes() const { return rows * words * int64_t{kSparseWord}; }
};

inline int64_t tiles_along(int64_t extent, int64_t tile) { return extent / tile + (extent % tile != 0); }
inline SparseTiles sparse_tiles(const char* stream, const char* index, int64_t bytes, int64_t outputs, int64_t inputs) {
  return {stream, index, bytes, outputs, inputs, tiles_along(outputs, kSparseRows), tiles_along(inputs, kSparseCols)};
}

// Extents of tile `down` along the outputs, `across` along the inputs; the rest is zero.
SparseTile tile_extents(int64_t outputs, int64_t inputs, int64_t down, int64_t across);
SparseTile tile_at(const SparseTiles& tiles, int64_t down, int64_t across);

// Checks shapes, and for every tile that what its entry says lies inside the stream; nothing of the stream is read.
Status open_tiles(const char* op, const TensorView& stream, const TensorView& index, int64_t outputs, int64_t inputs,
                  SparseTiles* out);

// The first row of a tile.
SparseCursor tile_cursor(const SparseTiles& tiles, int64_t down, int64_t across);

}  // namespace vmo
