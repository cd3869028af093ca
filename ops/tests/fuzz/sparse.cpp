// SPDX-License-Identifier: Apache-2.0
// Hostile compressed weights under the address and undefined-behaviour sanitizers: every flipped bit of small streams and
// indexes, then random damage. Every buffer has exactly its size, so a byte read outside ends the program.
//
// sparse_fuzz [rounds of random damage]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "core/sparse_tiles.h"
#include "readers.h"
#include "vmo/api.h"
#include "vmo/core.h"

namespace {

using vmo::DType;
using vmo::TensorView;

int g_accepted = 0, g_refused = 0;

[[noreturn]] void give_up(const char* what) {
  std::printf("sparse_fuzz: %s: %s\n", what, vmo::last_error());
  std::exit(1);
}

void require(int status, const char* what) {
  if (status != 0) give_up(what);
}

// Memory of exactly so many elements.
template <class T>
struct Exact {
  std::unique_ptr<T[]> data;
  int64_t count;

  explicit Exact(int64_t n) : data(new T[static_cast<size_t>(n)]()), count(n) {}
  Exact(const Exact& other) : Exact(other.count) { std::memcpy(data.get(), other.data.get(), sizeof(T) * static_cast<size_t>(count)); }

  TensorView view(DType dtype) const { return vmo::contiguous_view(data.get(), dtype, 1, &count); }
  TensorView matrix(DType dtype, int64_t rows) const {
    const int64_t shape[2] = {rows, count / rows};
    return vmo::contiguous_view(data.get(), dtype, 2, shape);
  }
};

struct Coded {
  int64_t outputs, inputs;
  Exact<int8_t> stream, index;
};

Exact<int8_t> make_weight(std::mt19937_64& random, int64_t outputs, int64_t inputs, int zeros_in_8) {
  Exact<int8_t> weight(outputs * inputs);
  for (int64_t i = 0; i < weight.count; ++i) {
    const uint64_t bits = random();
    if (static_cast<int>(bits & 7) >= zeros_in_8) weight.data[i] = static_cast<int8_t>(bits >> 8);
  }
  return weight;
}

Coded encode(const Exact<int8_t>& weight, int64_t outputs, int64_t inputs) {
  Exact<int8_t> index(vmo::sparse_tiles(nullptr, nullptr, 0, outputs, inputs).count() * vmo::kSparseEntryBytes);
  Exact<int64_t> bytes(1);
  const TensorView plain = weight.matrix(DType::kInt8, outputs), entries = index.view(DType::kInt8);
  const TensorView size = bytes.view(DType::kInt64);
  require(vmo_core_sparse_index(&plain, &entries, &size), "index");
  Exact<int8_t> stream(bytes.data[0]);
  const TensorView out = stream.view(DType::kInt8);
  require(vmo_core_sparse_encode(&plain, &entries, &out), "encode");
  require(vmo_core_sparse_validate(&out, &entries, outputs, inputs), "validate");
  return {outputs, inputs, stream, index};
}

// Reads every tile with one way to read.
void read_all(const vmo::SparseKernels& reader, const vmo::SparseTiles& tiles) {
  const char* end = tiles.stream + tiles.bytes;
  std::vector<vmo::SparseCursor> cursors(static_cast<size_t>(tiles.across));
  for (int64_t down = 0; down < tiles.down; ++down) {
    const vmo::SparseTile extents = vmo::tile_extents(tiles.outputs, tiles.inputs, down, 0);
    const int64_t ld = tiles.across * vmo::kSparseCols;
    const auto open = [&](int skipped) {
      for (int64_t i = 0; i < tiles.across; ++i) {
        cursors[static_cast<size_t>(i)] = vmo::tile_cursor(tiles, down, i);
        if (skipped > 0) reader.skip(&cursors[static_cast<size_t>(i)], skipped);
      }
    };
    Exact<int8_t> panel(extents.rows * ld);
    for (const int skipped : {0, extents.rows / 2}) {
      open(skipped);
      for (int64_t i = 0; i < tiles.across; ++i) {
        reader.expand(&cursors[static_cast<size_t>(i)], extents.rows - skipped, end, panel.data.get() + i * vmo::kSparseCols, ld);
      }
    }
    for (int rows = 1; rows <= reader.sum_rows; ++rows) {
      const Exact<int8_t> x(rows * ld);
      const Exact<int32_t> shifts(rows * tiles.across);
      const int cols = std::min(vmo::sparse_sum_cols(rows), extents.rows);
      const Exact<int32_t> sums(int64_t{rows} * 64 * ((cols + 63) / 64));
      open(0);
      reader.sums({x.data.get(), ld, shifts.data.get(), rows, cursors.data(), tiles.across, end, cols, sums.data.get()});
    }
    for (const int rows : {1, 16, 17, vmo::kPackedSumRows}) {
      if (reader.packed_sums == nullptr) break;
      const int64_t strip = vmo::tiles_along(tiles.inputs, vmo::kSparseWord) * 16 * vmo::kSparseWord;
      const Exact<int8_t> x(strip * vmo::tiles_along(rows, 16));
      const Exact<int32_t> sums(int64_t{rows} * 64 * ((extents.rows + 63) / 64));
      open(0);
      reader.packed_sums({x.data.get(), strip, nullptr, rows, cursors.data(), tiles.across, end, extents.rows, sums.data.get()});
    }
  }
}

// Validates, decodes and multiplies; a weight that validation accepts must decode and encode to itself.
void use(const Coded& coded) {
  const TensorView stream = coded.stream.view(DType::kInt8), index = coded.index.view(DType::kInt8);
  const bool valid = vmo_core_sparse_validate(&stream, &index, coded.outputs, coded.inputs) == 0;
  ++(valid ? g_accepted : g_refused);
  const Exact<int8_t> weight(coded.outputs * coded.inputs);
  const TensorView plain = weight.matrix(DType::kInt8, coded.outputs);
  const bool decoded = vmo_core_sparse_decode(&stream, &index, &plain) == 0;
  if (valid && !decoded) give_up("a valid stream is not decoded");
  if (valid) {
    const Coded again = encode(weight, coded.outputs, coded.inputs);
    const bool same = again.stream.count == coded.stream.count &&
                      std::memcmp(again.stream.data.get(), coded.stream.data.get(), static_cast<size_t>(coded.stream.count)) == 0;
    if (!same) give_up("a valid stream is not what its weight is coded as");
  }
  vmo::SparseTiles tiles;
  if (vmo::open_tiles("fuzz", stream, index, coded.outputs, coded.inputs, &tiles) != vmo::kOk) return;
  for (const vmo::SparseKernels* reader : readers()) read_all(*reader, tiles);
  const Exact<float> scale(coded.outputs);
  for (const int rows : {1, 5}) {
    const Exact<int8_t> x(rows * coded.inputs);
    const Exact<float> y(rows * coded.outputs);
    const vmo::Int8Weight list{stream, scale.view(DType::kFloat32), {}, {}, index};
    const TensorView codes = x.matrix(DType::kInt8, rows), out = y.matrix(DType::kFloat32, rows);
    vmo::int8_linear("fuzz", codes, {}, 1, &list, out);
  }
}

void flip_every_bit(Coded coded) {
  for (Exact<int8_t>* part : {&coded.stream, &coded.index}) {
    for (int64_t bit = 0; bit < part->count * 8; ++bit) {
      part->data[bit / 8] = static_cast<int8_t>(part->data[bit / 8] ^ (1 << bit % 8));
      use(coded);
      part->data[bit / 8] = static_cast<int8_t>(part->data[bit / 8] ^ (1 << bit % 8));
    }
  }
}

// Some bytes of either part become others; now and then the stream loses its end.
void damage(std::mt19937_64& random, Coded coded) {
  if (random() % 4 == 0 && coded.stream.count > 64) {
    Exact<int8_t> shorter(64 * (1 + static_cast<int64_t>(random() % static_cast<uint64_t>(coded.stream.count / 64))));
    std::memcpy(shorter.data.get(), coded.stream.data.get(), static_cast<size_t>(shorter.count));
    coded.stream.data.swap(shorter.data);
    coded.stream.count = shorter.count;
  }
  Exact<int8_t>& part = random() % 2 == 0 ? coded.stream : coded.index;
  for (int i = 1 + static_cast<int>(random() % 8); i > 0; --i) {
    part.data[random() % static_cast<uint64_t>(part.count)] = random() % 2 == 0 ? -1 : static_cast<int8_t>(random());
  }
  use(coded);
}

}  // namespace

int main(int count, char** arguments) {
  std::mt19937_64 random(1);
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 300;
  // One bitmap of short rows, a dense tile, tiles on either side of a border.
  const int small[][3] = {{3, 70, 4}, {2, 64, 0}, {1, 300, 6}};
  for (const auto& [outputs, inputs, zeros] : small) {
    flip_every_bit(encode(make_weight(random, outputs, inputs, zeros), outputs, inputs));
  }
  const Coded larger = encode(make_weight(random, 130, 330, 4), 130, 330);
  use(larger);
  for (int i = 0; i < rounds; ++i) damage(random, larger);
  std::printf("sparse_fuzz: %zu readers, %d accepted, %d refused\n", readers().size(), g_accepted, g_refused);
  return 0;
}
