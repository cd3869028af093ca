// SPDX-License-Identifier: Apache-2.0
// Cache views, slot and block table checks, and the cache write.
#include "kv_cache.h"

#include "check.h"
#include "row_tasks.h"

namespace vmo {

Status read_cache(const char* op, const char* name, const TensorView& view, Cache* out) {
  VMO_TRY(require_shape(op, name, view, {kAny, kAny, kAny, kAny}));
  const int64_t heads = view.shape[2], dim = view.shape[3];
  if ((dim != 1 && view.strides[3] != 1) || (heads != 1 && view.strides[2] != dim)) {
    return fail(op, "argument %s of shape %s must be gap-free in its last two axes", name, shape_text(view));
  }
  if (view.shape[1] < 1) return fail(op, "argument %s of shape %s has no slots in a block", name, shape_text(view));
  *out = Cache{static_cast<char*>(view.data), view.shape[0],   view.shape[1],  heads, dim,
               view.strides[0],               view.strides[1]};
  return kOk;
}

Status require_same_layout(const char* op, const Cache& keys, const Cache& values) {
  if (keys.blocks == values.blocks && keys.block_size == values.block_size && keys.kv_heads == values.kv_heads &&
      keys.head_dim == values.head_dim) {
    return kOk;
  }
  return fail(op, "value_cache has shape %s; expected that of key_cache %s",
              shape_text({values.blocks, values.block_size, values.kv_heads, values.head_dim}),
              shape_text({keys.blocks, keys.block_size, keys.kv_heads, keys.head_dim}));
}

Status read_cache_scales(const char* op, const TensorView& view, int64_t channels, CacheScales* out) {
  *out = CacheScales{};
  if (view.data == nullptr) return kOk;
  VMO_TRY(require_dtype(op, "cache_scales", view, DType::kFloat32));
  VMO_TRY(require_shape(op, "cache_scales", view, {4, channels}));
  if (!view.is_contiguous()) return fail(op, "argument cache_scales has a stride; expected adjacent elements");
  const auto* values = static_cast<const float*>(view.data);
  *out = CacheScales{values, values + channels, values + 2 * channels, values + 3 * channels};
  return kOk;
}

Status check_slots(const char* op, const TensorView& slot_mapping, int64_t tokens, int64_t slots) {
  VMO_TRY(require_index_type(op, "slot_mapping", slot_mapping));
  VMO_TRY(require_shape(op, "slot_mapping", slot_mapping, {tokens}));
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t slot = index_at(slot_mapping, t);
    if (slot >= slots) {
      return fail(op, "slot_mapping[%lld] is %lld; expected less than the cache's %lld slots",
                  static_cast<long long>(t), static_cast<long long>(slot), static_cast<long long>(slots));
    }
  }
  return kOk;
}

int64_t SequenceTable::context(int64_t i) const { return index_at(context_lens, i); }
int64_t SequenceTable::queries(int64_t i) const { return query_lens.data == nullptr ? 1 : index_at(query_lens, i); }

namespace {

Status check_sequence(const char* op, const SequenceTable& table, int64_t i, const Cache& cache, int64_t max_blocks) {
  const int64_t context = table.context(i), queries = table.queries(i);
  if (queries < 0 || context < queries || context > max_blocks * cache.block_size) {
    return fail(op,
                "sequence %lld has %lld query tokens and context length %lld; expected 0 <= query <= context <= %lld "
                "(columns of block_tables times block size)",
                static_cast<long long>(i), static_cast<long long>(queries), static_cast<long long>(context),
                static_cast<long long>(max_blocks * cache.block_size));
  }
  if (queries == 0) return kOk;
  const int32_t* blocks = table.block_tables + i * table.ldtables;
  for (int64_t b = 0; b * cache.block_size < context; ++b) {
    const int64_t id = load_unaligned<int32_t>(blocks + b);
    if (id < 0 || id >= cache.blocks) {
      return fail(op, "block_tables[%lld, %lld] is %lld; expected 0 to %lld", static_cast<long long>(i),
                  static_cast<long long>(b), static_cast<long long>(id), static_cast<long long>(cache.blocks - 1));
    }
  }
  return kOk;
}

}  // namespace

Status read_sequences(const char* op, const PagedSequences& sequences, const Cache& cache, int64_t tokens,
                      SequenceTable* out) {
  const TensorView& tables = sequences.block_tables;
  VMO_TRY(require_dtype(op, "block_tables", tables, DType::kInt32));
  VMO_TRY(require_rank(op, "block_tables", tables, 2));
  const int64_t count = tables.shape[0], max_blocks = tables.shape[1];
  VMO_TRY(require_index_type(op, "context_lens", sequences.context_lens));
  VMO_TRY(require_shape(op, "context_lens", sequences.context_lens, {count}));
  if (sequences.query_lens.data != nullptr) {
    VMO_TRY(require_index_type(op, "q_seq_lens", sequences.query_lens));
    VMO_TRY(require_shape(op, "q_seq_lens", sequences.query_lens, {count}));
  }
  Rows rows;
  VMO_TRY(input_rows(op, "block_tables", tables, max_blocks, ScratchSlot::kMaterialise2, &rows));
  *out = SequenceTable{reinterpret_cast<const int32_t*>(rows.data), rows.stride, count, sequences.context_lens,
                       sequences.query_lens};
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    VMO_TRY(check_sequence(op, *out, i, cache, max_blocks));
    total += out->queries(i);
  }
  if (total > tokens) {
    return fail(op, "q_seq_lens sum to %lld; expected at most the %lld rows of the query",
                static_cast<long long>(total), static_cast<long long>(tokens));
  }
  return kOk;
}

namespace {

Status read_new_rows(const char* op, const char* name, const TensorView& view, const Cache& cache, int64_t tokens,
                     DType dtype, ScratchSlot slot, Rows* out) {
  VMO_TRY(require_dtype(op, name, view, dtype));
  const int64_t width = cache.kv_heads * cache.head_dim;
  if (view.numel() != tokens * width) {
    return fail(op, "argument %s has shape %s; expected %lld tokens (slot_mapping) of %lld elements", name,
                shape_text(view), static_cast<long long>(tokens), static_cast<long long>(width));
  }
  return input_rows(op, name, view, width, slot, out);
}

void write_rows(const Rows& rows, const Cache& cache, const TensorView& slots, size_t element) {
  const auto bytes = static_cast<size_t>(rows.cols) * element;
  for_row_ranges(rows.rows, rows.cols, [&](int64_t row0, int64_t row1) {
    for (int64_t t = row0; t < row1; ++t) {
      const int64_t slot = index_at(slots, t);
      if (slot < 0) continue;
      std::memcpy(cache.row(slot, element), rows.data + t * rows.stride * static_cast<int64_t>(element), bytes);
    }
  });
}

}  // namespace

Status reshape_and_cache(const char* op, const TensorView& key, const TensorView& value, const TensorView& key_cache,
                         const TensorView& value_cache, const TensorView& slot_mapping) {
  Cache keys, values;
  VMO_TRY(read_cache(op, "key_cache", key_cache, &keys));
  VMO_TRY(require_rank(op, "slot_mapping", slot_mapping, 1));
  const int64_t tokens = slot_mapping.shape[0];
  Rows key_rows, value_rows;
  VMO_TRY(read_new_rows(op, "key", key, keys, tokens, key_cache.dtype, ScratchSlot::kMaterialise0, &key_rows));
  VMO_TRY(check_slots(op, slot_mapping, tokens, keys.slots()));
  if (value.data != nullptr) {
    VMO_TRY(read_cache(op, "value_cache", value_cache, &values));
    VMO_TRY(read_new_rows(op, "value", value, values, tokens, value_cache.dtype, ScratchSlot::kMaterialise1,
                          &value_rows));
    VMO_TRY(check_slots(op, slot_mapping, tokens, values.slots()));
    write_rows(value_rows, values, slot_mapping, size_of(value.dtype));
  }
  write_rows(key_rows, keys, slot_mapping, size_of(key.dtype));
  return kOk;
}

}  // namespace vmo
