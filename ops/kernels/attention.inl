// SPDX-License-Identifier: Apache-2.0
// One task of causal paged attention: a block of query rows against the keys of one kv head, with online softmax
// (Milakov & Gimelshein 2018) over key blocks at fixed absolute positions.
//
// A row's result depends only on its own query and its visible keys: scores and weighted sums run through the same
// operations whatever other rows share the task, and a block in which a row sees no key leaves its state untouched.
//
// Caches hold elements of the type T of queries and outputs, or int8 codes with a scale s and an offset z per channel,
// which stand for (code - z) * s. Codes are widened to float as they are read, and s and z stay out of the loops:
// - q . key = (q * s) . codes - (q * s) . z. The last term is the same for all keys of a query, so that the softmax does
//   not see it, and is left out.
// - sum_j p_j value_j = (sum_j p_j codes_j - z) * s, since the p_j sum up to 1.
#pragma once

namespace {

constexpr int kValueVecs = 4;      // accumulators per row of the weighted sum
constexpr int kValueRows = 4;

// Work memory of one task.
struct AttentionState {
  float* scores;   // [kMaxQueryRows][kKeyBlock]: scores, then probabilities
  float* sums;     // [kMaxQueryRows][width]: running weighted sum of values
  float* queries;  // [kMaxQueryRows][width]: the queries times the scales of int8 keys
  char* rest;      // what the products need besides
  int64_t width;   // head_dim rounded up to what the products compute at once
  int rows_per_head;
  int64_t limit[kMaxQueryRows];    // visible keys of each row
  float maximum[kMaxQueryRows];
  float total[kMaxQueryRows];
  int keys;                        // keys of the current block that some row sees
};

inline int64_t padded_width(int64_t head_dim, int64_t step) { return (head_dim + step - 1) / step * step; }

// Places the parts of the work memory at `scratch`, the last one being `rest`.
inline void place(AttentionState* state, void* scratch, int64_t width, bool scaled_queries) {
  state->width = width;
  state->scores = static_cast<float*>(scratch);
  state->sums = state->scores + kMaxQueryRows * kKeyBlock;
  state->queries = state->sums + kMaxQueryRows * width;
  state->rest = reinterpret_cast<char*>(state->queries + (scaled_queries ? kMaxQueryRows * width : 0));
}

inline size_t state_bytes(const AttentionArgs& args, int64_t step) {
  const int64_t widths = args.key_scale == nullptr ? 1 : 2;
  return sizeof(float) * kMaxQueryRows * static_cast<size_t>(kKeyBlock + widths * padded_width(args.head_dim, step));
}

inline size_t attention_scratch(const AttentionArgs& args) { return state_bytes(args, Vec::kLanes); }

// What queries are multiplied with keys as: those of int8 caches hold the keys' scales, in float32.
template <class T, class C>
using Query = std::conditional_t<std::is_same_v<T, C>, T, float>;

// Pointers to the task's first kv head in the keys and values at absolute positions first .. first + count - 1.
template <class T>
inline void cache_rows(const AttentionArgs& args, const AttentionTask& task, int64_t first, int count, const T** keys,
                       const T** values) {
  const int32_t* table = args.block_tables + task.sequence * args.ldtables;
  const int64_t head = task.kv_head * args.head_dim;
  int64_t place = first / args.block_size, slot = first % args.block_size;
  for (int i = 0; i < count; ++i) {
    const int64_t block = vmo::load_unaligned<int32_t>(table + place);
    keys[i] = at<T>(args.key_cache, block * args.key_block_stride + slot * args.key_token_stride + head);
    values[i] = at<T>(args.value_cache, block * args.value_block_stride + slot * args.value_token_stride + head);
    if (++slot == args.block_size) {
      slot = 0;
      ++place;
    }
  }
}

// A row of a cache is short and the next one far away, which hardware prefetchers do not follow.
template <class T>
inline void prefetch_rows(const T* const* rows, int count, int64_t width) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int i = 0; i < count; ++i) {
    for (int64_t d = 0; d < width; d += kLine) __builtin_prefetch(rows[i] + d, 0, kSecondLevelCache);
  }
}

// Keys of the block at first_key that the row sees.
inline int visible_keys(const AttentionState& state, int row, int64_t first_key) {
  const int64_t left = state.limit[row] - first_key;
  return left <= 0 ? 0 : left < kKeyBlock ? static_cast<int>(left) : kKeyBlock;
}

inline bool any_nan(const float* values, int count) {
  for (int i = 0; i < count; ++i) {
    if (values[i] != values[i]) return true;
  }
  return false;
}

// Scores of one row -> probabilities relative to the new maximum; rescales the row's sums.
inline void softmax_row(AttentionState& state, int row, int64_t first_key, float scale) {
  const int visible = visible_keys(state, row, first_key);
  if (visible == 0) return;
  float* scores = state.scores + row * kKeyBlock;
  const float kMinusInfinity = -__builtin_inff();
  Vec highest = Vec::set1(state.maximum[row]);
  for (int i = 0; i < visible; i += Vec::kLanes) {
    Vec v = Vec::load(scores + i) * Vec::set1(scale);
    if (visible - i < Vec::kLanes) v = v.keep_first(visible - i, kMinusInfinity);
    v.store(scores + i);
    highest = max(highest, v);
  }
  const float maximum = reduce_max(highest);
  if (maximum == kMinusInfinity && !any_nan(scores, visible)) {  // no weight so far; the formula below gives NaN
    for (int i = 0; i < kKeyBlock; i += Vec::kLanes) Vec::zero().store(scores + i);
    return;
  }
  const Vec offset = Vec::set1(maximum);
  Vec total = Vec::zero();
  for (int i = 0; i < kKeyBlock; i += Vec::kLanes) {
    Vec p = Vec::zero();
    if (i < visible) p = exp(Vec::load(scores + i) - offset);
    if (i < visible && visible - i < Vec::kLanes) p = p.keep_first(visible - i, 0.0f);
    p.store(scores + i);
    total = total + p;
  }
  const bool first_block = first_key == 0;
  const Vec rescale = first_block ? Vec::zero() : exp(Vec::set1(state.maximum[row]) - offset);
  float factor[Vec::kLanes];
  rescale.store(factor);
  state.total[row] = state.total[row] * factor[0] + reduce_add(total);
  state.maximum[row] = maximum;
  float* sums = state.sums + row * state.width;
  for (int64_t i = 0; i < state.width; i += Vec::kLanes) (Vec::load(sums + i) * rescale).store(sums + i);
}

// sums[row, d] += sum_j p[row, j] * value[j, d] for kRows rows and kVecs vectors of d, j in rising order from begin to
// end - 1: only keys that all these rows see, since the product with a masked key's NaN or infinity is NaN. What lies
// `prefetch` elements ahead (0: nothing) is fetched meanwhile.
template <class T, int kRows, int kVecs>
inline void add_values(AttentionState& state, int row, const T* const* values, int begin, int end, int64_t d,
                       int64_t head_dim, int64_t prefetch) {
  Vec sums[kRows][kVecs];
  float* base = state.sums + row * state.width + d;
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVecs; ++v) sums[r][v] = Vec::load(base + r * state.width + v * Vec::kLanes);
  }
  const float* p = state.scores + row * kKeyBlock;
  const bool whole = d + kVecs * Vec::kLanes <= head_dim;
  constexpr int kLine = 64 / sizeof(T);
  for (int j = begin; j < end; ++j) {
    if (prefetch != 0) {
      for (int i = 0; i < kVecs * Vec::kLanes; i += kLine) {
        __builtin_prefetch(values[j] + d + prefetch + i, 0, kSecondLevelCache);
      }
    }
    Vec value[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      const T* source = values[j] + d + v * Vec::kLanes;
      value[v] = whole ? Vec::load(source) : load_some(source, head_dim - d - v * Vec::kLanes);
    }
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = Vec::set1(p[r * kKeyBlock + j]);
      for (int v = 0; v < kVecs; ++v) sums[r][v] = fma(weight, value[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVecs; ++v) sums[r][v].store(base + r * state.width + v * Vec::kLanes);
  }
}

template <class T, int kRows>
inline void add_values_range(AttentionState& state, int row, const T* const* values, int begin, int end,
                             int64_t head_dim, int64_t prefetch) {
  if (begin == end) return;
  int64_t d = 0;
  for (; d + kValueVecs * Vec::kLanes <= state.width; d += kValueVecs * Vec::kLanes) {
    add_values<T, kRows, kValueVecs>(state, row, values, begin, end, d, head_dim, prefetch);
  }
  for (; d < state.width; d += Vec::kLanes) add_values<T, kRows, 1>(state, row, values, begin, end, d, head_dim, prefetch);
}

// kRows rows of one head together as far as the first sees, which sees least, then each alone.
template <class T, int kRows>
inline void add_values_rows(AttentionState& state, int row, const T* const* values, int64_t first_key,
                            int64_t head_dim, int64_t prefetch) {
  const int shared = visible_keys(state, row, first_key);
  add_values_range<T, kRows>(state, row, values, 0, shared, head_dim, prefetch);
  for (int r = row + 1; r < row + kRows; ++r) {
    add_values_range<T, 1>(state, r, values, shared, visible_keys(state, r, first_key), head_dim, 0);
  }
}

// The two products of attention by vectors.
template <class Q, class C>
struct VectorProducts {
  static constexpr int64_t kWidth = Vec::kLanes;

  static void begin(const AttentionArgs&, AttentionState&, const Q* const*, int) {}

  // Scores of the rows from row0 on, all of one kv head, with the keys of the current block; fetches what lies
  // `prefetch` elements behind each key (0: nothing).
  static void score(const AttentionArgs& args, AttentionState& state, const Q* const* queries, const C* const* keys,
                    int row0, int64_t prefetch) {
    dot_tile(queries + row0, state.rows_per_head, keys, state.keys, args.head_dim, prefetch,
             state.scores + row0 * kKeyBlock, kKeyBlock);
  }

  // Adds the values, weighted by what the scores became, to the sums of these rows.
  static void add(const AttentionArgs& args, AttentionState& state, const C* const* values, int row0,
                  int64_t first_key, int64_t prefetch) {
    const int end = row0 + state.rows_per_head;
    int row = row0;
    for (; row + kValueRows <= end; row += kValueRows) {
      add_values_rows<C, kValueRows>(state, row, values, first_key, args.head_dim, row == row0 ? prefetch : 0);
    }
    if (row + 2 <= end) {
      add_values_rows<C, 2>(state, row, values, first_key, args.head_dim, row == row0 ? prefetch : 0);
      row += 2;
    }
    if (row < end) add_values_rows<C, 1>(state, row, values, first_key, args.head_dim, row == row0 ? prefetch : 0);
  }
};

// The rows from row0 on, all of one kv head, against the current key block; fetches what lies `prefetch` elements
// behind each key and value (0: nothing).
template <class Products, class Q, class C>
inline void visit_head(const AttentionArgs& args, AttentionState& state, const Q* const* queries,
                       const C* const* keys, const C* const* values, int row0, int64_t first_key, int64_t prefetch) {
  Products::score(args, state, queries, keys, row0, prefetch);
  for (int row = row0; row < row0 + state.rows_per_head; ++row) softmax_row(state, row, first_key, args.scale);
  Products::add(args, state, values, row0, first_key, prefetch);
}

template <class T>
inline void next_head(const T** rows, int count, int64_t head_dim) {
  for (int i = 0; i < count; ++i) rows[i] += head_dim;
}

// Key block at first_key of a pass whose last row sees `last` keys. While one head is used the next one, its neighbour
// in memory, is fetched a little at a time: fetching much at once overruns the queues of outstanding misses, and then
// nothing overlaps. Behind the last head comes the first one of the next block.
template <class Products, class Q, class C>
inline void visit_key_block(const AttentionArgs& args, const AttentionTask& task, AttentionState& state,
                            const Q* const* queries, int64_t first_key, int64_t last) {
  const C* keys[kKeyBlock];
  const C* values[kKeyBlock];
  const C* later_keys[kKeyBlock];
  const C* later_values[kKeyBlock];
  const int64_t left = last - first_key - kKeyBlock;
  const int later = left <= 0 ? 0 : left < kKeyBlock ? static_cast<int>(left) : kKeyBlock;
  cache_rows(args, task, first_key, state.keys, keys, values);
  cache_rows(args, task, first_key + kKeyBlock, later, later_keys, later_values);
  for (int head = 0; head < task.kv_heads; ++head) {
    const bool last_head = head + 1 == task.kv_heads;
    if (last_head) {
      prefetch_rows(later_keys, later, args.head_dim);
      prefetch_rows(later_values, later, args.head_dim);
    }
    visit_head<Products>(args, state, queries, keys, values, head * state.rows_per_head, first_key,
                         last_head ? 0 : args.head_dim);
    next_head(keys, state.keys, args.head_dim);
    next_head(values, state.keys, args.head_dim);
  }
}

// The query of a row, times the scales of its kv head's int8 keys.
template <class T>
inline const float* scaled_query(const AttentionArgs& args, int64_t kv_head, const T* query, float* scaled) {
  const float* scale = args.key_scale + kv_head * args.head_dim;
  for (int64_t d = 0; d < args.head_dim; d += Vec::kLanes) {
    const int64_t left = args.head_dim - d;
    store_some(load_some(query + d, left) * load_some(scale + d, left), scaled + d, left);
  }
  return scaled;
}

// The weighted sums of a row over their weights, rounded.
template <class T, class C>
inline void store_row_of(const AttentionArgs& args, int64_t kv_head, const float* sums, float total, T* out) {
  for (int64_t d = 0; d < args.head_dim; d += Vec::kLanes) {
    const int64_t left = args.head_dim - d;
    Vec mean = Vec::load(sums + d) / Vec::set1(total);
    if constexpr (!std::is_same_v<T, C>) {
      const int64_t channel = kv_head * args.head_dim + d;
      mean = (mean - load_some(args.value_offset + channel, left)) * load_some(args.value_scale + channel, left);
    }
    store_some(mean, out + d, left);
  }
}

// Rows [first, first + count) of each kv head of the task; row r is query token r / group, head r % group of the group.
template <class Products, class T, class C>
inline void attend_rows(const AttentionArgs& args, const AttentionTask& task, int first, int count,
                        AttentionState& state) {
  const int64_t group = args.heads / args.kv_heads;
  const Query<T, C>* queries[kMaxQueryRows];
  T* out[kMaxQueryRows];
  const int rows = count * task.kv_heads;
  state.rows_per_head = count;
  for (int i = 0; i < rows; ++i) {
    const int row = first + i % count;
    const int64_t kv_head = task.kv_head + i / count, token = row / group, head = kv_head * group + row % group;
    const T* query = at<T>(args.query, (task.first_row + token) * args.ldquery + head * args.head_dim);
    if constexpr (std::is_same_v<T, C>) {
      queries[i] = query;
    } else {
      queries[i] = scaled_query(args, kv_head, query, state.queries + i * state.width);
    }
    out[i] = at<T>(args.out, (task.first_row + token) * args.ldout + head * args.head_dim);
    state.limit[i] = task.first_limit + token;
    state.maximum[i] = -__builtin_inff();
    state.total[i] = 0.0f;
  }
  std::memset(state.sums, 0, sizeof(float) * static_cast<size_t>(rows * state.width));
  Products::begin(args, state, queries, rows);
  const int64_t last = state.limit[rows - 1];
  for (int64_t key = 0; key < last; key += kKeyBlock) {
    state.keys = static_cast<int>(last - key < kKeyBlock ? last - key : kKeyBlock);
    visit_key_block<Products, Query<T, C>, C>(args, task, state, queries, key, last);
  }
  for (int i = 0; i < rows; ++i) {
    store_row_of<T, C>(args, task.kv_head + i / count, state.sums + i * state.width, state.total[i], out[i]);
  }
}

// With caches of elements of type C.
template <class T, class C, class Products = VectorProducts<Query<T, C>, C>>
inline void attend(const AttentionArgs& args, const AttentionTask& task, void* scratch) {
  AttentionState state;
  place(&state, scratch, padded_width(args.head_dim, Products::kWidth), !std::is_same_v<T, C>);
  const int rows = task.rows * static_cast<int>(args.heads / args.kv_heads);
  for (int first = 0; first < rows; first += kMaxQueryRows) {
    const int count = rows - first < kMaxQueryRows ? rows - first : kMaxQueryRows;
    attend_rows<Products, T, C>(args, task, first, count, state);
  }
}

template <class T>
void attention(const AttentionArgs& args, const AttentionTask& task, void* scratch) {
  if (args.key_scale == nullptr) return attend<T, T>(args, task, scratch);
  attend<T, int8_t>(args, task, scratch);
}

}  // namespace
