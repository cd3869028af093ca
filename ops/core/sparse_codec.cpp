// SPDX-License-Identifier: Apache-2.0
// Coding of int8 weights as tiles of bitmaps and values (docs/sparse_quant_format.md), and back.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "check.h"
#include "sparse_tiles.h"
#include "vmo/core.h"
#include "vmo/isa.h"
#include "vmo/scratch.h"
#include "vmo/thread_pool.h"

namespace vmo {
namespace {

constexpr uint64_t kLows = 0x0101010101010101u, kHighs = 0x8080808080808080u;

// The top bit of each byte that is not 0.
uint64_t non_zero(uint64_t bytes) { return ((((bytes & ~kHighs) + ~kHighs) | bytes) & kHighs); }

int64_t count_bits(uint64_t bits) {
  bits -= bits >> 1 & 0x5555555555555555u;
  bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
  return static_cast<int64_t>((((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fu) * kLows) >> 56);
}

int64_t in_units(int64_t bytes) { return tiles_along(bytes, kSparseUnit) * kSparseUnit; }

// int8 weights [N, K] whose rows may be apart.
struct Plain {
  Rows rows;
  int64_t outputs, inputs, down, across;
};

Status open_plain(const char* op, const TensorView& weight, Plain* out) {
  VMO_TRY(require_rank(op, "weight", weight, 2));
  *out = {{}, weight.shape[0], weight.shape[1], tiles_along(weight.shape[0], kSparseRows),
          tiles_along(weight.shape[1], kSparseCols)};
  if (out->inputs < 1) return fail(op, "argument weight has shape %s; expected at least one input", shape_text(weight));
  return weight_rows(op, "weight", weight, DType::kInt8, out->inputs, &out->rows);
}

const char* row_of(const Plain& plain, int64_t down, int64_t across, int row) {
  return plain.rows.data + (down * kSparseRows + row) * plain.rows.stride + across * kSparseCols;
}

int columns_of(const SparseTile& tile) { return (tile.words - 1) * kSparseWord + tile.last_columns; }

// Word `word` of a row of a tile in 64 bytes, zeros behind its end.
void copy_word(const SparseTile& tile, const char* row, int word, uint64_t (&out)[8]) {
  const int count = word + 1 < tile.words ? kSparseWord : tile.last_columns;
  if (count < kSparseWord) std::memset(out, 0, sizeof(out));
  std::memcpy(out, row + word * kSparseWord, static_cast<size_t>(count));
}

uint64_t mask_of(const uint64_t (&bytes)[8]) {
  uint64_t mask = 0;
  // The multiplication gathers the bits of eight bytes in the top one.
  for (int i = 0; i < 8; ++i) mask |= ((non_zero(bytes[i]) >> 7) * 0x0102040810204080u >> 56) << (8 * i);
  return mask;
}

int64_t count_values(const Plain& plain, const SparseTile& tile, int64_t down, int64_t across) {
  int64_t count = 0;
  const int columns = columns_of(tile);
  for (int r = 0; r < tile.rows; ++r) {
    const char* row = row_of(plain, down, across, r);
    int zeros = 0;
    for (int k = 0; k < columns; ++k) zeros += row[k] == 0;
    count += columns - zeros;
  }
  return count;
}

uint64_t entry_of(const SparseTile& tile) {
  return static_cast<uint64_t>(tile.length / kSparseUnit) | static_cast<uint64_t>(tile.coding) << kSparseLengthBits |
         static_cast<uint64_t>(tile.offset / kSparseUnit) << (kSparseLengthBits + kSparseCodingBits);
}

// Coding and length of a tile.
void choose_coding(const Plain& plain, int64_t down, int64_t across, SparseTile* tile) {
  const int64_t values = count_values(plain, *tile, down, across);
  const int64_t bitmap = tile->mask_bytes() + in_units(values), dense = tile->dense_bytes();
  tile->coding = values == 0 ? TileCoding::kZero : bitmap < dense ? TileCoding::kBitmap : TileCoding::kDense;
  tile->length = values == 0 ? 0 : std::min(bitmap, dense);
}

void write_dense(const Plain& plain, const SparseTile& tile, int64_t down, int64_t across, char* out) {
  const int columns = columns_of(tile), whole = tile.words * kSparseWord;
  for (int r = 0; r < tile.rows; ++r, out += whole) {
    std::memcpy(out, row_of(plain, down, across, r), static_cast<size_t>(columns));
    std::memset(out + columns, 0, static_cast<size_t>(whole - columns));
  }
}

void write_bitmap(const Plain& plain, const SparseTile& tile, int64_t down, int64_t across, char* out) {
  char* mask_at = out;
  char* values = out + tile.mask_bytes();
  uint64_t bytes[8];
  char packed[kSparseWord + 1];
  for (int r = 0; r < tile.rows; ++r) {
    const char* row = row_of(plain, down, across, r);
    for (int word = 0; word < tile.words; ++word, mask_at += sizeof(uint64_t)) {
      copy_word(tile, row, word, bytes);
      store_unaligned(mask_at, mask_of(bytes));
      int count = 0;
      for (int i = 0; i < kSparseWord; ++i) {
        const char value = reinterpret_cast<const char*>(bytes)[i];
        packed[count] = value;
        count += value != 0;
      }
      std::memcpy(values, packed, static_cast<size_t>(count));
      values += count;
    }
  }
  std::memset(mask_at, 0, static_cast<size_t>(out + tile.mask_bytes() - mask_at));
  std::memset(values, 0, static_cast<size_t>(out + tile.length - values));
}

// ---- validation

struct Problem {
  const char* text;  // null: none
  int64_t found, expected;
};

bool all_zero(const char* p, int64_t count) {
  char any = 0;
  for (int64_t i = 0; i < count; ++i) any = static_cast<char>(any | p[i]);
  return any == 0;
}

int64_t zeros_in(const char* p, int64_t count) {
  int64_t zeros = 0;
  while (count > 0) {
    const int64_t some = std::min<int64_t>(count, 128);  // an 8-bit counter is enough
    unsigned char found = 0;
    for (int64_t i = 0; i < some; ++i) found = static_cast<unsigned char>(found + (p[i] == 0));
    zeros += found;
    p += some;
    count -= some;
  }
  return zeros;
}

Problem check_dense(const SparseTile& tile, const char* p) {
  if (tile.length != tile.dense_bytes()) return {"length in bytes", tile.length, tile.dense_bytes()};
  const int columns = columns_of(tile), whole = tile.words * kSparseWord;
  for (int r = 0; r < tile.rows && columns < whole; ++r) {
    if (!all_zero(p + r * whole + columns, whole - columns)) return {"bytes of a row before zeros", whole, columns};
  }
  return {};
}

Problem check_bitmap(const SparseTile& tile, const char* p) {
  const int64_t words = int64_t{tile.rows} * tile.words;
  const uint64_t beyond = tile.last_columns == kSparseWord ? 0 : ~uint64_t{0} << tile.last_columns;
  int64_t values = 0;
  uint64_t outside = 0;
  for (int r = 0; r < tile.rows; ++r) {
    for (int word = 0; word < tile.words; ++word) {
      const auto mask = load_unaligned<uint64_t>(p + (int64_t{r} * tile.words + word) * 8);
      values += count_bits(mask);
      if (word + 1 == tile.words) outside |= mask & beyond;
    }
  }
  if (outside != 0) return {"bits of a row of masks", tile.words * kSparseWord, columns_of(tile)};
  const int64_t length = tile.mask_bytes() + in_units(values);
  if (tile.length != length) return {"length in bytes", tile.length, length};
  if (!all_zero(p + words * 8, tile.mask_bytes() - words * 8)) return {"bytes behind the masks that are not 0", 1, 0};
  const char* at = p + tile.mask_bytes();
  const int64_t zeros = zeros_in(at, values);
  if (zeros != 0) return {"values that are 0", zeros, 0};
  if (!all_zero(at + values, p + tile.length - at - values)) return {"bytes behind the values that are not 0", 1, 0};
  return {};
}

Problem check_tile(const SparseTiles& tiles, const SparseTile& tile) {
  if (tile.offset + tile.length > tiles.bytes - kSparseUnit) {
    return {"end in the stream", tile.offset + tile.length, tiles.bytes - kSparseUnit};
  }
  switch (tile.coding) {
    case TileCoding::kDense: return check_dense(tile, tiles.stream + tile.offset);
    case TileCoding::kBitmap: return check_bitmap(tile, tiles.stream + tile.offset);
    default: return {tile.length == 0 ? nullptr : "length in bytes", tile.length, 0};
  }
}

Status report(const char* op, const SparseTiles& tiles, int64_t i, const Problem& problem) {
  const int64_t output = i / tiles.across * kSparseRows, input = i % tiles.across * kSparseCols;
  return fail(op, "tile %lld (outputs from %lld, inputs from %lld): %s: expected %lld, found %lld",
              static_cast<long long>(i), static_cast<long long>(output), static_cast<long long>(input), problem.text,
              static_cast<long long>(problem.expected), static_cast<long long>(problem.found));
}

// Offsets follow from lengths, and the stream ends behind the last.
Status check_order(const char* op, const SparseTiles& tiles) {
  int64_t offset = 0;
  for (int64_t i = 0; i < tiles.count(); ++i) {
    const SparseTile tile = tile_at(tiles, i / tiles.across, i % tiles.across);
    if (tile.offset != offset) return report(op, tiles, i, {"offset in bytes", tile.offset, offset});
    offset += tile.length;
  }
  if (offset + kSparseUnit != tiles.bytes) {
    return fail(op, "the stream has %lld bytes; expected %lld by the lengths of its tiles and 64 of guard",
                static_cast<long long>(tiles.bytes), static_cast<long long>(offset + kSparseUnit));
  }
  if (!all_zero(tiles.stream + offset, kSparseUnit)) return fail(op, "the last 64 bytes of the stream are not zero");
  return kOk;
}

}  // namespace

Status sparse_index(const char* op, const TensorView& weight, const TensorView& index, int64_t* stream_bytes) {
  Plain plain;
  VMO_TRY(open_plain(op, weight, &plain));
  const int64_t count = plain.down * plain.across;
  VMO_TRY(require_vector(op, "index", index, DType::kInt8, count * kSparseEntryBytes));
  std::vector<SparseTile> tiles(static_cast<size_t>(count));
  parallel_for(plain.down, [&](int64_t down) {
    for (int64_t across = 0; across < plain.across; ++across) {
      SparseTile& tile = tiles[static_cast<size_t>(down * plain.across + across)];
      tile = tile_extents(plain.outputs, plain.inputs, down, across);
      choose_coding(plain, down, across, &tile);
    }
  });
  int64_t offset = 0;
  auto* entry = static_cast<char*>(index.data);
  for (SparseTile& tile : tiles) {
    tile.offset = offset;
    store_unaligned(entry, entry_of(tile));
    offset += tile.length;
    entry += kSparseEntryBytes;
  }
  *stream_bytes = offset + kSparseUnit;
  return kOk;
}

Status sparse_encode(const char* op, const TensorView& weight, const TensorView& index, const TensorView& stream) {
  Plain plain;
  VMO_TRY(open_plain(op, weight, &plain));
  SparseTiles tiles;
  VMO_TRY(open_tiles(op, stream, index, plain.outputs, plain.inputs, &tiles));
  auto* out = static_cast<char*>(stream.data);
  std::atomic<bool> other{false};
  parallel_for(plain.down, [&](int64_t down) {
    for (int64_t across = 0; across < plain.across; ++across) {
      const SparseTile tile = tile_at(tiles, down, across);
      SparseTile again = tile_extents(plain.outputs, plain.inputs, down, across);
      choose_coding(plain, down, across, &again);
      // Also keeps what is written inside the stream.
      if (again.coding != tile.coding || again.length != tile.length ||
          tile.offset + tile.length > tiles.bytes - kSparseUnit) {
        other = true;
        return;
      }
      if (tile.coding == TileCoding::kDense) write_dense(plain, tile, down, across, out + tile.offset);
      if (tile.coding == TileCoding::kBitmap) write_bitmap(plain, tile, down, across, out + tile.offset);
    }
  });
  if (other) return fail(op, "the index is not that of the weight");
  std::memset(out + tiles.bytes - kSparseUnit, 0, static_cast<size_t>(kSparseUnit));
  return kOk;
}

Status sparse_validate(const char* op, const TensorView& stream, const TensorView& index, int64_t outputs,
                       int64_t inputs) {
  SparseTiles tiles;
  VMO_TRY(open_tiles(op, stream, index, outputs, inputs, &tiles));
  VMO_TRY(check_order(op, tiles));
  std::atomic<int64_t> first{tiles.count()};  // tile with a problem
  const auto check = [&](int64_t i) { return check_tile(tiles, tile_at(tiles, i / tiles.across, i % tiles.across)); };
  parallel_for(tiles.count(), [&](int64_t i) {
    if (check(i).text == nullptr) return;
    int64_t before = first.load();
    while (i < before && !first.compare_exchange_weak(before, i)) continue;
  });
  const int64_t bad = first.load();
  return bad == tiles.count() ? kOk : report(op, tiles, bad, check(bad));
}

Status sparse_decode(const char* op, const TensorView& stream, const TensorView& index, const TensorView& weight) {
  const KernelTable* table = active_kernels(op);
  if (table == nullptr) return kError;
  const SparseKernels& sparse = sparse_kernels(*table);
  Plain plain;
  VMO_TRY(open_plain(op, weight, &plain));
  SparseTiles tiles;
  VMO_TRY(open_tiles(op, stream, index, plain.outputs, plain.inputs, &tiles));
  VMO_TRY(require_output(op, "weight", weight, plain.outputs * plain.inputs));
  parallel_for(tiles.count(), [&](int64_t i) {
    const int64_t down = i / tiles.across, across = i % tiles.across;
    const SparseTile tile = tile_at(tiles, down, across);
    SparseCursor cursor = tile_cursor(tiles, down, across);
    int8_t row[kSparseCols];
    for (int r = 0; r < tile.rows; ++r) {
      sparse.expand(&cursor, 1, tiles.stream + tiles.bytes, row, kSparseCols);
      std::memcpy(const_cast<char*>(row_of(plain, down, across, r)), row, static_cast<size_t>(columns_of(tile)));
    }
  });
  return kOk;
}

}  // namespace vmo
