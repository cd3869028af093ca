// SPDX-License-Identifier: Apache-2.0
// Causal paged attention: out[t, h] = sum_j softmax_j(scale * q[t, h] . k[j, h / G]) v[j, h / G], G = H / KH, over
// the keys j visible to token t. Tasks are (sequence, kv heads, block of query tokens), largest first.
#include <algorithm>

#include "check.h"
#include "kv_cache.h"
#include "linear_run.h"
#include "vmo/thread_pool.h"

namespace vmo {
namespace {

constexpr int64_t kInlineWork = 1 << 15;  // multiply-adds below which waking a thread costs more
constexpr int64_t kTasksPerThread = 2;    // enough to balance

int64_t tokens_per_task(const AttentionArgs& args) {
  return std::max<int64_t>(1, kMaxQueryRows / (args.heads / args.kv_heads));
}

int64_t count_query_blocks(const AttentionArgs& args, const SequenceTable& table) {
  const int64_t step = tokens_per_task(args);
  int64_t blocks = 0;
  for (int64_t i = 0; i < table.sequences; ++i) blocks += (table.queries(i) + step - 1) / step;
  return blocks;
}

// Kv heads that tasks of `rows` tokens take together: as many as one pass holds, while every thread has work.
int64_t heads_per_task(const AttentionArgs& args, int64_t rows, int64_t query_blocks) {
  const int64_t wanted = kTasksPerThread * num_threads();
  int64_t heads = std::clamp<int64_t>(kMaxQueryRows / (rows * (args.heads / args.kv_heads)), 1, args.kv_heads);
  while (heads > 1 && query_blocks * ((args.kv_heads + heads - 1) / heads) < wanted) --heads;
  return heads;
}

struct TaskList {
  int64_t count;
  int64_t tokens;  // query tokens they cover
};

// Fills `tasks`, which has room for query_blocks * kv_heads.
TaskList make_tasks(const AttentionArgs& args, const SequenceTable& table, int64_t query_blocks,
                    AttentionTask* tasks) {
  const int64_t step = tokens_per_task(args);
  TaskList list{0, 0};
  for (int64_t i = 0; i < table.sequences; ++i) {
    const int64_t queries = table.queries(i), before = table.context(i) - queries;
    for (int64_t first = 0; first < queries; first += step) {
      const int64_t rows = std::min(step, queries - first);
      const int64_t heads = heads_per_task(args, rows, query_blocks);
      for (int64_t head = 0; head < args.kv_heads; head += heads) {
        tasks[list.count++] = AttentionTask{static_cast<int32_t>(i),
                                            static_cast<int32_t>(head),
                                            static_cast<int32_t>(std::min(heads, args.kv_heads - head)),
                                            static_cast<int32_t>(rows),
                                            list.tokens + first,
                                            before + first + 1};
      }
    }
    list.tokens += queries;
  }
  return list;
}

int64_t cost(const AttentionTask& task) {
  return task.kv_heads * task.rows * (task.first_limit + task.rows);
}

Status check_heads(const char* op, int64_t heads, int64_t kv_heads, const Cache& cache) {
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0) {
    return fail(op, "got %lld heads and %lld kv heads; expected a positive multiple", static_cast<long long>(heads),
                static_cast<long long>(kv_heads));
  }
  if (cache.kv_heads != kv_heads) {
    return fail(op, "key_cache has %lld kv heads; expected %lld", static_cast<long long>(cache.kv_heads),
                static_cast<long long>(kv_heads));
  }
  if (cache.head_dim < 1) return fail(op, "key_cache has heads without elements");
  return kOk;
}

}  // namespace

void run_attention(const ElementKernels& kernels, size_t element, AttentionArgs args, const SequenceTable& table,
                   int64_t tokens) {
  args.block_tables = table.block_tables;
  args.ldtables = table.ldtables;
  args.any_order = !batch_invariant();
  const int64_t query_blocks = count_query_blocks(args, table);
  auto* tasks = static_cast<AttentionTask*>(
      scratch(ScratchSlot::kTasks, static_cast<size_t>(query_blocks * args.kv_heads) * sizeof(AttentionTask)));
  const auto [count, used] = make_tasks(args, table, query_blocks, tasks);
  // Stable, so that the heads of one query block, which share its rows, stay neighbours.
  std::stable_sort(tasks, tasks + count,
                   [](const AttentionTask& a, const AttentionTask& b) { return cost(a) > cost(b); });
  const size_t bytes = kernels.attention_scratch(args);
  const auto run = [&, tasks = tasks](int64_t i) {
    kernels.attention(args, tasks[i], scratch(ScratchSlot::kTile, bytes));
  };
  int64_t work = 0;
  for (int64_t i = 0; i < count && work <= kInlineWork; ++i) {
    work += cost(tasks[i]) * args.heads / args.kv_heads * args.head_dim;
  }
  if (work <= kInlineWork) {
    for (int64_t i = 0; i < count; ++i) run(i);
  } else {
    parallel_for(count, run);
  }
  if (used == tokens) return;
  char* rest = args.out + used * args.ldout * static_cast<int64_t>(element);
  std::memset(rest, 0, static_cast<size_t>((tokens - used) * args.ldout) * element);
}

Status paged_attention(const char* op, const TensorView& query, const TensorView& key_cache,
                       const TensorView& value_cache, const PagedSequences& sequences, int64_t heads, int64_t kv_heads,
                       double scale, const TensorView& out, const TensorView& cache_scales) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "query", query.dtype, &kernels));
  const DType cached = cache_scales.data == nullptr ? query.dtype : DType::kInt8;
  VMO_TRY(require_dtype(op, "key_cache", key_cache, cached));
  VMO_TRY(require_dtype(op, "value_cache", value_cache, cached));
  Cache keys, values;
  CacheScales scales;
  VMO_TRY(read_cache(op, "key_cache", key_cache, &keys));
  VMO_TRY(read_cache(op, "value_cache", value_cache, &values));
  VMO_TRY(require_same_layout(op, keys, values));
  VMO_TRY(check_heads(op, heads, kv_heads, keys));
  VMO_TRY(read_cache_scales(op, cache_scales, kv_heads * keys.head_dim, &scales));
  const int64_t width = heads * keys.head_dim;
  Rows rows;
  VMO_TRY(input_rows(op, "query", query, width, ScratchSlot::kMaterialise0, &rows));
  SequenceTable table;
  VMO_TRY(read_sequences(op, sequences, keys, rows.rows, &table));
  VMO_TRY(require_dtype(op, "out", out, query.dtype));
  VMO_TRY(require_output(op, "out", out, query.numel()));
  AttentionArgs args{};
  args.query = rows.data;
  args.ldquery = rows.stride;
  args.key_cache = keys.data;
  args.value_cache = values.data;
  args.key_block_stride = keys.block_stride;
  args.key_token_stride = keys.token_stride;
  args.value_block_stride = values.block_stride;
  args.value_token_stride = values.token_stride;
  args.key_scale = scales.key_scale;
  args.value_scale = scales.value_scale;
  args.value_offset = scales.value_offset;
  args.block_size = keys.block_size;
  args.heads = heads;
  args.kv_heads = kv_heads;
  args.head_dim = keys.head_dim;
  args.scale = static_cast<float>(scale);
  args.out = static_cast<char*>(out.data);
  args.ldout = width;
  run_attention(*kernels, size_of(query.dtype), args, table, rows.rows);
  return kOk;
}

}  // namespace vmo
