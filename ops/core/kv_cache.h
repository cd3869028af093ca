// SPDX-License-Identifier: Apache-2.0
// Checked access to a paged key or value cache and to the tables that index it.
#pragma once

#include "vmo/core.h"
#include "vmo/kernel_table.h"

namespace vmo {

// Cache [blocks, block_size, kv_heads, head_dim]; the last two axes are gap-free, strides count elements.
struct Cache {
  char* data = nullptr;
  int64_t blocks = 0, block_size = 0, kv_heads = 0, head_dim = 0;
  int64_t block_stride = 0, token_stride = 0;

  int64_t slots() const { return blocks * block_size; }
  // Address of the kv_heads * head_dim elements of a slot.
  char* row(int64_t slot, size_t element) const {
    const int64_t offset = slot / block_size * block_stride + slot % block_size * token_stride;
    return data + offset * static_cast<int64_t>(element);
  }
};

Status read_cache(const char* op, const char* name, const TensorView& view, Cache* out);
Status require_same_layout(const char* op, const Cache& keys, const Cache& values);

// What the int8 codes of caches stand for: (code - offset) * scale, each of kv_heads * head_dim channels. All null where
// caches hold floats.
struct CacheScales {
  const float* key_scale = nullptr;
  const float* key_offset = nullptr;
  const float* value_scale = nullptr;
  const float* value_offset = nullptr;
};
// From float32 [4, channels] in this order, or null data.
Status read_cache_scales(const char* op, const TensorView& view, int64_t channels, CacheScales* out);

// Slots must be negative (skip) or inside the cache.
Status check_slots(const char* op, const TensorView& slot_mapping, int64_t tokens, int64_t slots);

// Checks context lengths, query lengths and block ids against the shapes; `tokens` is the rows of the query.
struct SequenceTable {
  const int32_t* block_tables = nullptr;
  int64_t ldtables = 0;
  int64_t sequences = 0;
  TensorView context_lens, query_lens;

  int64_t context(int64_t i) const;
  int64_t queries(int64_t i) const;
};
Status read_sequences(const char* op, const PagedSequences& sequences, const Cache& cache, int64_t tokens,
                      SequenceTable* out);

// Runs the attention kernel over checked arguments; `args` lacks only the tables.
void run_attention(const ElementKernels& kernels, size_t element, AttentionArgs args, const SequenceTable& table,
                   int64_t tokens);

}  // namespace vmo
