// SPDX-License-Identifier: Apache-2.0
// How rows are packed and a matrix product is cut into tasks. The cut never changes a result: every output is one sum.
#include "linear_run.h"

#include <algorithm>
#include <atomic>

#include "vmo/scratch.h"
#include "vmo/thread_pool.h"

namespace vmo {
namespace {

constexpr int64_t kColsStep = 64;        // columns of a kernel tile
constexpr int64_t kDotStep = 8, kBlockStep = 32;  // columns computed together, of rows as they are and packed
constexpr int64_t kTaskBytes = 128 << 10;  // of weights, for streaming: a few microseconds of memory traffic
constexpr int64_t kReusedBytes = 256 << 10;  // of weights that several blocks of rows use
constexpr int64_t kBlockBytes = 512 << 10;  // of weights reused for many rows: half of a usual second-level cache
constexpr int64_t kFewRows = 16, kManyRows = 64;
constexpr int64_t kRowsPerTask = 192;
constexpr int64_t kPackedBytes = 4 << 20;  // of rows packed together: they stay in the last-level cache
constexpr int64_t kPackedStep = 96;        // rows; a multiple of the 48 and the 32 that kernels compute together
constexpr int64_t kInlinePacking = 1 << 16;  // elements below which waking a thread costs more
constexpr int64_t kInlineWork = 1 << 15;  // multiply-adds below which waking a thread costs more

struct Cut {
  int64_t cols;  // columns of w per task
  int64_t rows;  // rows of x per task
};

Cut choose_cut(int64_t rows, int64_t inner, int64_t total_cols, size_t element, int64_t step) {
  const int64_t row_bytes = std::max<int64_t>(inner * static_cast<int64_t>(element), 1);
  const int64_t bytes = rows <= kFewRows ? kTaskBytes : rows <= kManyRows ? kReusedBytes : kBlockBytes;
  int64_t cols = std::clamp<int64_t>(bytes / row_bytes / step * step, step, 512);
  if (rows > kFewRows) cols = std::clamp<int64_t>(cols / kColsStep * kColsStep, kColsStep, 256);
  // Enough tasks to balance; splitting rows instead of columns would read the weights twice.
  const int64_t wanted = 4 * num_threads();
  while (cols > step && total_cols / cols < wanted) cols = std::max(step, cols / 2 / step * step);
  const bool split_rows = rows > kRowsPerTask && (total_cols + cols - 1) / cols < wanted;
  return {cols, split_rows ? kRowsPerTask : rows};
}

// Runs body(tile) over all tasks of the weights' outputs.
template <class Body>
void for_tiles(int weights, const int64_t* cols, int64_t rows, int64_t inner, size_t element,
               const char* packed, Body body) {
  int64_t total = 0;
  for (int i = 0; i < weights; ++i) total += cols[i];
  if (total == 0 || rows == 0) return;
  const Cut cut = choose_cut(rows, inner, total, element, packed == nullptr ? kDotStep : kBlockStep);
  int64_t pieces[kMaxWeights] = {}, all = 0;
  for (int i = 0; i < weights; ++i) all += pieces[i] = (cols[i] + cut.cols - 1) / cut.cols;
  const int64_t row_pieces = (rows + cut.rows - 1) / cut.rows;
  const auto run = [&](int64_t task) {
    int64_t piece = task / row_pieces;
    int weight = 0;
    while (piece >= pieces[weight]) piece -= pieces[weight++];
    const int64_t m0 = task % row_pieces * cut.rows, n0 = piece * cut.cols;
    body(Tile{weight, m0, std::min(m0 + cut.rows, rows), n0, std::min(n0 + cut.cols, cols[weight])});
  };
  if (rows * total * inner <= kInlineWork) {
    for (int64_t task = 0; task < all * row_pieces; ++task) run(task);
  } else {
    parallel_for(all * row_pieces, run);
  }
}

std::atomic<bool> g_batch_invariant{false};

const char* pack_rows(const Packing& packing, const char* x, int64_t ldx, int64_t rows, int64_t inner) {
  char* packed = static_cast<char*>(scratch(ScratchSlot::kPack, packing.bytes(rows, inner)));
  const auto pack = [&](int64_t task) { packing.pack(x, ldx, rows, inner, packed, task); };
  const int64_t tasks = packing.tasks(rows);
  if (rows * inner > kInlinePacking) {
    parallel_for(tasks, pack);
  } else {
    for (int64_t task = 0; task < tasks; ++task) pack(task);
  }
  return packed;
}

// Calls run(group, row) for groups of rows, from `row` on, that are packed together.
template <class Args, class Run>
void for_packed_groups(const Packing& packing, size_t element, size_t out_element, const Args& args, Run run) {
  const auto step_bytes = static_cast<int64_t>(packing.bytes(kPackedStep, args.inner));
  const int64_t most = std::max<int64_t>(kPackedBytes / step_bytes, 1) * kPackedStep;
  for (int64_t m = 0; m < args.rows; m += most) {
    Args group = args;
    group.rows = std::min(most, args.rows - m);
    group.x = args.x + m * args.ldx * static_cast<int64_t>(element);
    group.y = args.y + m * args.ldy * static_cast<int64_t>(out_element);
    group.packed = pack_rows(packing, group.x, args.ldx, group.rows, args.inner);
    run(group, m);
  }
}

bool packs(const Packing& packing, int64_t rows, int64_t inner) {
  return packing.packs != nullptr && packing.packs(rows) && inner > 0;
}

// The same for products of floats, whose order of additions packing changes; or run(args) where rows are not packed.
template <class Args, class Run>
void for_row_groups(const Packing& packing, size_t element, size_t out_element, const Args& args, Run run) {
  if (batch_invariant() || !packs(packing, args.rows, args.inner)) return run(args);
  for_packed_groups(packing, element, out_element, args, [&](const Args& group, int64_t) { run(group); });
}

}  // namespace

void set_batch_invariant(bool on) { g_batch_invariant = on; }

bool batch_invariant() { return g_batch_invariant.load(std::memory_order_relaxed); }

void run_linear(const ElementKernels& kernels, size_t element, const LinearArgs& args) {
  const size_t out_element = args.float_output ? sizeof(float) : element;
  for_row_groups(kernels.packing, element, out_element, args, [&](const LinearArgs& group) {
    for_tiles(group.weights, group.cols, group.rows, group.inner, element, group.packed,
              [&](const Tile& tile) { kernels.linear(group, tile); });
  });
}

void run_gate_up(const ElementKernels& kernels, size_t element, const GateUpArgs& args) {
  for_row_groups(kernels.packing, element, element, args, [&](const GateUpArgs& group) {
    // Two weights share a task, so each gets half of the bytes.
    for_tiles(1, &group.cols, group.rows, group.inner, 2 * element, group.packed,
              [&](const Tile& tile) { kernels.gate_up(group, tile); });
  });
}

void run_weight_only(const ElementKernels& kernels, size_t element, bool int4, const WeightOnlyArgs& args) {
  const auto kernel = int4 ? kernels.int4_weight : kernels.int8_weight;
  const size_t out_element = args.float_output ? sizeof(float) : element;
  for_row_groups(kernels.code_packing, element, out_element, args, [&](const WeightOnlyArgs& group) {
    for_tiles(group.weights, group.cols, group.rows, group.inner, sizeof(int8_t), group.packed,
              [&](const Tile& tile) { kernel(group, tile); });
  });
}

void for_int8_groups(const Packing& packing, size_t element, const Int8LinearArgs& args,
                     const std::function<void(const Int8LinearArgs&)>& run) {
  if (!packs(packing, args.rows, args.inner)) return run(args);
  for_packed_groups(packing, sizeof(int8_t), element, args, [&](Int8LinearArgs group, int64_t row) {
    if (args.token_scale != nullptr) group.token_scale = args.token_scale + row;
    run(group);
  });
}

void run_int8_linear(const ElementKernels& kernels, const Packing& packing, size_t element, const Int8LinearArgs& args) {
  for_int8_groups(packing, element, args, [&](const Int8LinearArgs& group) {
    for_tiles(group.weights, group.cols, group.rows, group.inner, sizeof(int8_t), group.packed,
              [&](const Tile& tile) { kernels.int8_linear(group, tile); });
  });
}

}  // namespace vmo
