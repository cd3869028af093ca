// SPDX-License-Identifier: Apache-2.0
// Attention of bfloat16 and float16 on AMX tiles, for tasks with more rows than one tile. A row's bits differ from those
// in a task of fewer rows, whose sums run in another order; on either side they do not depend on the other rows.
//
// - Scores are products of keys with packed queries, as those of weights with packed inputs: bfloat16 keys in their natural
//   layout, float16 ones in two parts (parts.inl). Those that are no numbers have no parts: vectors compute the
//   scores of keys that hold one. Of queries that do no score is a number, whichever way it is computed.
// - Probabilities become two bfloat16 each, the second being what rounding took from the first: together they are within
//   2^-17 of the float32 probability, where the result is rounded to 2^-9 (float16: 2^-12).
// - Values are packed in pairs of keys. Those that are no numbers are left out and added alone, to the rows that see
//   them: tiles multiply the zero weight of a key that a row does not see, too.
#pragma once

#include "amx/parts.inl"

namespace {

static_assert(kMaxQueryRows == kBlock && kKeyBlock == kTileCols, "the scores of a pass are blocks of sums");
static_assert(kBlock == kStepInner<BFloat16>);

// What tiles need besides the state, in AttentionState::rest: caches hold elements of type T.
template <class T>
struct TileMemory {
  int64_t width;
  int64_t query_bytes;  // of a part of the packed queries
  char* queries;        // packed, part by part
  BFloat16* rounded;    // [kMaxQueryRows][kKeyBlock]: probabilities
  BFloat16* left;       // the same: what rounding took from them
  BFloat16* values;     // [part][kKeyBlock / 2][width][2]
  BFloat16* rows;       // [kBlock][part][width]: queries or keys

  TileMemory(char* base, int64_t head_dim)
      : width(padded_width(head_dim, kBlock)),
        query_bytes(static_cast<int64_t>(pack_bytes<BFloat16>(kMaxQueryRows, width))),
        queries(base),
        rounded(reinterpret_cast<BFloat16*>(base + kParts<T> * query_bytes)),
        left(rounded + kMaxQueryRows * kKeyBlock),
        values(left + kMaxQueryRows * kKeyBlock),
        rows(values + kParts<T> * value_part()) {}

  static size_t bytes(int64_t head_dim) {
    const int64_t width = padded_width(head_dim, kBlock), probabilities = 2 * kMaxQueryRows * kKeyBlock;
    const auto elements = static_cast<size_t>(probabilities + kParts<T> * (kKeyBlock + kBlock) * width);
    return kParts<T> * pack_bytes<BFloat16>(kMaxQueryRows, width) + sizeof(BFloat16) * elements;
  }
  int64_t value_part() const { return kKeyBlock * width; }  // elements
};

inline bool evenly_spaced(const BFloat16* const* rows, int count, int64_t stride) {
  for (int i = 1; i < count; ++i) {
    if (rows[i] != rows[i - 1] + stride) return false;
  }
  return true;
}

// A row's probabilities -> their two parts. The scores of a block in which it sees no key are no probabilities.
template <class T>
inline void split_probabilities(const AttentionState& state, int row, int64_t first_key, const TileMemory<T>& memory) {
  const bool sees_keys = visible_keys(state, row, first_key) > 0;
  for (int i = row * kKeyBlock; i < (row + 1) * kKeyBlock; i += 2 * Vec::kLanes) {
    __m512i parts[2];
    split(sees_keys ? Vec::load(state.scores + i) : Vec::zero(),
          sees_keys ? Vec::load(state.scores + i + Vec::kLanes) : Vec::zero(), parts);
    _mm512_storeu_si512(memory.rounded + i, parts[0]);
    _mm512_storeu_si512(memory.left + i, parts[1]);
  }
}

// Elements of 32 columns of two keys, as pairs: of columns 0 to 15 and of 16 to 31.
inline void store_pairs(__m512i even, __m512i odd, BFloat16* out) {
  const __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(low, first, high));
  _mm512_storeu_si512(out + 2 * Vec::kLanes, _mm512_permutex2var_epi64(low, second, high));
}

// Packs the values of the current block, zeros behind its keys; returns whether all are numbers.
template <class T>
inline bool pack_values(const T* const* values, int keys, int64_t head_dim, const TileMemory<T>& memory) {
  Highest highest;
  const auto load = [&](int key, int64_t d, __m512i* parts) {
    if (key < keys) return load_parts(values[key] + d, head_dim - d, parts);
    for (int part = 0; part < kParts<T>; ++part) parts[part] = _mm512_setzero_si512();
  };
  for (int key = 0; key < padded_width(keys, kStepInner<BFloat16>); key += 2) {
    for (int64_t d = 0; d < memory.width; d += kBlock) {
      __m512i even[2], odd[2];
      load(key, d, even);
      load(key + 1, d, odd);
      highest.take(even[0]);
      highest.take(odd[0]);
      BFloat16* out = memory.values + key * memory.width + 2 * d;
      for (int part = 0; part < kParts<T>; ++part) store_pairs(even[part], odd[part], out + part * memory.value_part());
    }
  }
  return highest.is_number();
}

template <class T>
inline void clear_no_numbers(const TileMemory<T>& memory) {
  BFloat16* end = memory.values + memory.value_part();
  for (BFloat16* p = memory.values; p < end; p += 2 * Vec::kLanes) {
    const __mmask32 numbers = ~no_numbers(_mm512_loadu_si512(p));
    for (int part = 0; part < kParts<T>; ++part) {
      BFloat16* values = p + part * memory.value_part();
      _mm512_storeu_si512(values, _mm512_maskz_mov_epi16(numbers, _mm512_loadu_si512(values)));
    }
  }
}

// Tiles 0 to 3 += 32 rows of one part of the probabilities . the values in tiles 4 and 5.
inline void add_part(const BFloat16* probabilities) {
  constexpr int64_t kBytes = kKeyBlock * sizeof(BFloat16);
  tile_load<6>(probabilities, kBytes);
  tile_load<7>(probabilities + kTileRowsAmx * kKeyBlock, kBytes);
  tile_dot_bf16<0, 6, 4>();
  tile_dot_bf16<1, 6, 5>();
  tile_dot_bf16<2, 7, 4>();
  tile_dot_bf16<3, 7, 5>();
}

// The sums of all rows += probabilities . packed values. What rounding took from both is too small to count.
template <class T>
inline void add_tiles(AttentionState& state, const TileMemory<T>& memory) {
  const int64_t sum_bytes = state.width * static_cast<int64_t>(sizeof(float));
  const int64_t pair_bytes = 2 * memory.width * static_cast<int64_t>(sizeof(BFloat16));
  for (int64_t d = 0; d < state.width; d += kBlock) {
    float* sums = state.sums + d;
    float* below = sums + kTileRowsAmx * state.width;
    tile_load<0>(sums, sum_bytes);
    tile_load<1>(sums + kTileRowsAmx, sum_bytes);
    tile_load<2>(below, sum_bytes);
    tile_load<3>(below + kTileRowsAmx, sum_bytes);
    for (int key = 0; key < state.keys; key += kStepInner<BFloat16>) {
      const BFloat16* pairs = memory.values + key * memory.width + 2 * d;
      for (int part = 0; part < kParts<T>; ++part, pairs += memory.value_part()) {
        tile_load<4>(pairs, pair_bytes);
        tile_load<5>(pairs + 2 * kTileRowsAmx, pair_bytes);
        add_part(memory.rounded + key);
        if (part == 0) add_part(memory.left + key);
      }
    }
    tile_store<0>(sums, sum_bytes);
    tile_store<1>(sums + kTileRowsAmx, sum_bytes);
    tile_store<2>(below, sum_bytes);
    tile_store<3>(below + kTileRowsAmx, sum_bytes);
  }
}

// The values of one key that are no numbers, to the sums of the rows that see it.
template <class T>
inline void add_no_numbers(AttentionState& state, const T* values, int key, int64_t first_key, int64_t head_dim) {
  constexpr int kNoNumber = 0x99;  // of VFPCLASSPS: quiet and signalling NaN, both infinities
  for (int64_t d = 0; d < head_dim; d += Vec::kLanes) {
    const Vec value = load_some(values + d, head_dim - d);
    const __mmask16 mask = _mm512_fpclass_ps_mask(value.v, kNoNumber);
    if (mask == 0) continue;
    for (int row = 0; row < state.rows_per_head; ++row) {
      if (key >= visible_keys(state, row, first_key)) continue;
      float* sums = state.sums + row * state.width + d;
      const Vec weight = Vec::set1(state.scores[row * kKeyBlock + key]);
      Vec{_mm512_mask3_fmadd_ps(weight.v, value.v, Vec::load(sums).v, mask)}.store(sums);
    }
  }
}

// The first block.n1 keys with the packed queries, as sums[n][m] in tiles 0 to 3; a bit for each key whose sums are still to
// be computed.
inline uint32_t multiply_keys(const AttentionArgs& args, const TileMemory<BFloat16>& memory, const BFloat16* const* keys,
                              const Tile& block) {
  const BFloat16* first = keys[0];
  int64_t stride = args.key_token_stride;
  if (!evenly_spaced(keys, block.n1, stride)) {
    split_rows(keys, block.n1, args.head_dim, memory.width, memory.rows);
    first = memory.rows;
    stride = memory.width;
  }
  multiply_block<BFloat16>(memory.queries, reinterpret_cast<const char*>(first), stride, block, args.head_dim, 0, [] {});
  return 0;
}

// Both parts of float16 keys with both of the queries'.
inline uint32_t multiply_keys(const AttentionArgs& args, const TileMemory<Half>& memory, const Half* const* keys,
                              const Tile& block) {
  const auto count = static_cast<int>(block.n1);
  const uint32_t others = split_rows(keys, count, args.head_dim, memory.width, memory.rows);
  const PackedParts queries{memory.queries, strip_bytes<BFloat16>(memory.width), memory.query_bytes};
  zero_sums();
  for (int64_t part = 0; part < kParts<Half>; ++part) {
    const BFloat16* rows = memory.rows + part * memory.width;
    add_products<Half>(has_two_strips(block), queries, rows, kParts<Half> * memory.width, memory.width);
  }
  return others;
}

// The two products of attention on tiles: all rows of a pass belong to one kv head.
template <class T>
struct TileProducts {
  static constexpr int64_t kWidth = kBlock;

  static void begin(const AttentionArgs& args, AttentionState& state, const T* const* queries, int rows) {
    const TileMemory<T> memory(state.rest, args.head_dim);
    split_rows(queries, rows, args.head_dim, memory.width, memory.rows);
    for (int part = 0; part < kParts<T>; ++part) {
      const auto* unpacked = reinterpret_cast<const char*>(memory.rows + part * memory.width);
      char* packed = memory.queries + part * memory.query_bytes;
      for (int64_t strip = 0; strip < pack_tasks(rows); ++strip) {
        pack<BFloat16, 0>(unpacked, kParts<T> * memory.width, rows, memory.width, packed, strip);
      }
    }
    // Tiles have rows for which there is no query.
    const auto missing = static_cast<size_t>((kMaxQueryRows - rows) * state.width);
    std::memset(state.sums + rows * state.width, 0, sizeof(float) * missing);
    std::memset(memory.rounded, 0, 2 * sizeof(BFloat16) * kMaxQueryRows * kKeyBlock);
  }

  static void score(const AttentionArgs& args, AttentionState& state, const T* const* queries, const T* const* keys, int,
                    int64_t) {
    const TileMemory<T> memory(state.rest, args.head_dim);
    for (int key = 0; key < state.keys; key += kBlock) {
      const Tile block{0, 0, state.rows_per_head, 0, state.keys - key < kBlock ? state.keys - key : kBlock};
      uint32_t others = multiply_keys(args, memory, keys + key, block);
      TileSums<float> products;
      products.take(block);
      for (int tile = 0; tile < tiles_of(block); ++tile) products.turn(tile, state.scores + key);
      for (; others != 0; others &= others - 1) {
        const int other = key + __builtin_ctz(others);
        dot_tile(queries, state.rows_per_head, keys + other, 1, args.head_dim, 0, state.scores + other, kKeyBlock);
      }
    }
  }

  static void add(const AttentionArgs& args, AttentionState& state, const T* const* values, int, int64_t first_key,
                  int64_t) {
    const TileMemory<T> memory(state.rest, args.head_dim);
    for (int row = 0; row < state.rows_per_head; ++row) split_probabilities(state, row, first_key, memory);
    const bool all_numbers = pack_values(values, state.keys, args.head_dim, memory);
    if (!all_numbers) clear_no_numbers(memory);
    add_tiles(state, memory);
    if (all_numbers) return;
    for (int key = 0; key < state.keys; ++key) add_no_numbers(state, values[key], key, first_key, args.head_dim);
  }
};

template <class T>
size_t attention_scratch_amx(const AttentionArgs& args) {
  const size_t tiles = state_bytes(args, TileProducts<T>::kWidth) + TileMemory<T>::bytes(args.head_dim);
  const size_t vectors = attention_scratch(args);
  return tiles > vectors ? tiles : vectors;
}

template <class T>
void attention_amx(const AttentionArgs& args, const AttentionTask& task, void* scratch) {
  const bool many_rows = task.rows * (args.heads / args.kv_heads) > kTileRowsAmx;
  if (!args.any_order || !many_rows || args.key_scale != nullptr) return attention<T>(args, task, scratch);
  const TileScope scope;
  attend<T, T, TileProducts<T>>(args, task, scratch);
}

}  // namespace
