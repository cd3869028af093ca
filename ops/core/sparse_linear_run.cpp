// SPDX-License-Identifier: Apache-2.0
// How products with compressed weights are cut into tasks: each decodes the tiles of up to 128 outputs, a part of them at a
// time, next to the product.
#include <algorithm>
#include <cstring>

#include "linear_run.h"
#include "sparse_tiles.h"
#include "vmo/isa.h"
#include "vmo/scratch.h"
#include "vmo/thread_pool.h"

namespace vmo {
namespace {

constexpr int64_t kFewPanelBytes = 32 << 10;    // of decoded weights that few rows use once
constexpr int64_t kManyPanelBytes = 512 << 10;  // that many rows use again: half of a usual second-level cache
constexpr int64_t kRowsPerTask = 192;
constexpr int64_t kInlineWork = 1 << 15;  // multiply-adds below which waking a thread costs more
constexpr int64_t kTasks = 4;             // for each thread: a late one leaves more to the others
constexpr int kMostPieces = 4;            // of an output tile: each but the first counts the values before it
constexpr int kPanelStep = 8;             // outputs

int64_t padded(int64_t inputs) { return tiles_along(inputs, kSparseWord) * kSparseWord; }

// Outputs [first, first + count) of weight `weight`, all in one row of tiles.
struct Outputs {
  int weight;
  int64_t first;
  int count;
};

struct Cut {
  int64_t pieces;    // of each output tile
  int64_t row_step;  // rows of x per task
};

SparseTiles tiles_of(const Int8LinearArgs& args, int weight) {
  return sparse_tiles(args.w[weight], args.index[weight], args.stream_bytes[weight], args.cols[weight], args.inner);
}

// The first rows of the tiles along K that hold these outputs.
SparseCursor* open_row(const SparseKernels& sparse, const SparseTiles& tiles, const Outputs& outputs) {
  const size_t bytes = static_cast<size_t>(tiles.across) * sizeof(SparseCursor);
  auto* cursors = static_cast<SparseCursor*>(scratch(ScratchSlot::kSparseRows, bytes));
  for (int64_t i = 0; i < tiles.across; ++i) {
    cursors[i] = tile_cursor(tiles, outputs.first / kSparseRows, i);
    const auto skipped = static_cast<int>(outputs.first % kSparseRows);
    if (skipped > 0) sparse.skip(cursors + i, skipped);
  }
  return cursors;
}

// The arguments of a product with outputs [first, ..) of a weight alone; its weights are still to be given.
Int8LinearArgs part_of(const Int8LinearArgs& args, size_t element, int weight, int64_t first, int count) {
  Int8LinearArgs part = args;
  const auto at = [first](const char* p, size_t size) { return p == nullptr ? nullptr : p + first * static_cast<int64_t>(size); };
  int64_t column = first;
  for (int i = 0; i < weight; ++i) column += args.cols[i];
  part.weights = 1;
  part.cols[0] = count;
  part.scale[0] = at(args.scale[weight], sizeof(float));
  part.quant_bias[0] = at(args.quant_bias[weight], sizeof(int32_t));
  part.bias[0] = at(args.bias[weight], element);
  part.y = args.y + column * static_cast<int64_t>(element);
  return part;
}

Cut choose_cut(const Int8LinearArgs& args, int64_t row_limit) {
  int64_t tiles = 0;
  for (int i = 0; i < args.weights; ++i) tiles += tiles_along(args.cols[i], kSparseRows);
  const int64_t wanted = kTasks * num_threads();
  Cut cut{1, args.rows};
  while (cut.pieces < kMostPieces && tiles * cut.pieces < wanted) cut.pieces *= 2;
  if (args.rows > row_limit && tiles * cut.pieces < wanted) cut.row_step = row_limit;
  return cut;
}

// Runs body(outputs, m0, m1) over all tasks.
template <class Body>
void for_outputs(const Int8LinearArgs& args, const Cut& cut, Body body) {
  const int64_t step = kSparseRows / cut.pieces, row_pieces = tiles_along(args.rows, std::max<int64_t>(cut.row_step, 1));
  int64_t counts[kMaxWeights] = {}, all = 0, total = 0;
  for (int i = 0; i < args.weights; ++i) {
    all += counts[i] = tiles_along(args.cols[i], step);
    total += args.cols[i];
  }
  const auto run = [&](int64_t task) {
    int64_t piece = task / row_pieces;
    int weight = 0;
    while (piece >= counts[weight]) piece -= counts[weight++];
    const int64_t m0 = task % row_pieces * cut.row_step, first = piece * step;
    const auto count = static_cast<int>(std::min(step, args.cols[weight] - first));
    body(Outputs{weight, first, count}, m0, std::min(m0 + cut.row_step, args.rows));
  };
  if (args.rows * total * args.inner <= kInlineWork) {
    for (int64_t task = 0; task < all * row_pieces; ++task) run(task);
  } else {
    parallel_for(all * row_pieces, run);
  }
}

// Decodes parts of the outputs into plain weights and multiplies those.
void run_panels(const ElementKernels& kernels, const SparseKernels& sparse, size_t element, const Int8LinearArgs& args) {
  const int64_t ld = padded(args.inner), budget = args.packed != nullptr ? kManyPanelBytes : kFewPanelBytes;
  const auto most = static_cast<int>(std::clamp<int64_t>(budget / ld / kPanelStep * kPanelStep, kPanelStep, kSparseRows));
  for_outputs(args, choose_cut(args, kRowsPerTask), [&](const Outputs& outputs, int64_t m0, int64_t m1) {
    const SparseTiles tiles = tiles_of(args, outputs.weight);
    SparseCursor* cursors = open_row(sparse, tiles, outputs);
    auto* panel = static_cast<int8_t*>(scratch(ScratchSlot::kSparse, static_cast<size_t>(most * ld)));
    for (int n = 0; n < outputs.count; n += most) {
      const int count = std::min(most, outputs.count - n);
      for (int64_t i = 0; i < tiles.across; ++i) {
        sparse.expand(cursors + i, count, tiles.stream + tiles.bytes, panel + i * kSparseCols, ld);
      }
      Int8LinearArgs part = part_of(args, element, outputs.weight, outputs.first + n, count);
      part.w[0] = reinterpret_cast<const char*>(panel);
      part.ldw[0] = ld;
      kernels.int8_linear(part, Tile{0, m0, m1, 0, count});
    }
  });
}

// Rows of x padded, as SparseSums wants them.
SparseSums padded_rows(const Int8LinearArgs& args) {
  // A line apart from a multiple of 4096, where loads would wait for stores of sums.
  const int64_t ld = padded(args.inner) + kSparseUnit, tiles = tiles_along(args.inner, kSparseCols);
  const size_t bytes = static_cast<size_t>(args.rows * ld), sums = static_cast<size_t>(args.rows * tiles) * sizeof(int32_t);
  auto* x = static_cast<int8_t*>(scratch(ScratchSlot::kPack, bytes + sums));
  auto* shifts = reinterpret_cast<int32_t*>(x + bytes);
  for (int64_t m = 0; m < args.rows; ++m) {
    int8_t* row = x + m * ld;
    std::memcpy(row, args.x + m * args.ldx, static_cast<size_t>(args.inner));
    std::memset(row + args.inner, 0, static_cast<size_t>(ld - args.inner));
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t count = std::min<int64_t>(kSparseCols, args.inner - tile * kSparseCols);
      int32_t sum = 0;
      for (int64_t k = 0; k < count; ++k) sum += row[tile * kSparseCols + k];
      shifts[tile * args.rows + m] = sum * 128;
    }
  }
  SparseSums out{};
  out.x = x;
  out.ldx = ld;
  out.shifts = shifts;
  return out;
}

SparseSums packed_rows(const Packing& packing, const Int8LinearArgs& args) {
  SparseSums out{};
  out.x = reinterpret_cast<const int8_t*>(args.packed);
  out.ldx = static_cast<int64_t>(packing.bytes(1, args.inner));
  return out;
}

// Multiplies weights as they are decoded, the rows of x being given; `most`: outputs at once.
void run_sums(const ElementKernels& kernels, const SparseKernels& sparse, size_t element, const Int8LinearArgs& args,
              const SparseSums& given, void (*add)(const SparseSums&), int most) {
  constexpr int kStored = 64;  // columns
  const int rows = static_cast<int>(args.rows);
  for_outputs(args, choose_cut(args, args.rows), [&](const Outputs& outputs, int64_t, int64_t) {
    const SparseTiles tiles = tiles_of(args, outputs.weight);
    alignas(64) int32_t sums[kSparseRows * kPackedSumRows];
    SparseSums part_sums = given;
    part_sums.rows = rows;
    part_sums.cursors = open_row(sparse, tiles, outputs);
    part_sums.tiles = tiles.across;
    part_sums.end = tiles.stream + tiles.bytes;
    part_sums.sums = sums;
    for (int n = 0; n < outputs.count; n += most) {
      part_sums.cols = std::min(most, outputs.count - n);
      add(part_sums);
      for (int done = 0; done < part_sums.cols; done += kStored) {
        const int cols = std::min(kStored, part_sums.cols - done);
        const Int8LinearArgs part = part_of(args, element, outputs.weight, outputs.first + n + done, cols);
        kernels.int8_store(part, Tile{0, 0, args.rows, 0, cols}, sums + done * rows);
      }
    }
  });
}

}  // namespace

void run_sparse_linear(const ElementKernels& kernels, const KernelTable& table, size_t element,
                       const Int8LinearArgs& args) {
  const SparseKernels& sparse = sparse_kernels(table);
  if (args.rows == 0) return;
  const bool on_tiles = sparse.packed_sums != nullptr && table.int8_packing.packs(args.rows) && args.inner > 0;
  if (args.rows <= sparse.sum_rows && !on_tiles) {
    return run_sums(kernels, sparse, element, args, padded_rows(args), sparse.sums, sparse_sum_cols(args.rows));
  }
  for_int8_groups(table.int8_packing, element, args, [&](const Int8LinearArgs& group) {
    if (!on_tiles || group.rows > kPackedSumRows) return run_panels(kernels, sparse, element, group);
    const SparseSums rows = packed_rows(table.int8_packing, group);
    run_sums(kernels, sparse, element, group, rows, sparse.packed_sums, kSparseRows);
  });
}

}  // namespace vmo
