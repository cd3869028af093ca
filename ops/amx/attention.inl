// SPDX-License-Identifier: Apache-2.0
// Attention of bfloat16 on AMX tiles, for tasks with more rows than one tile. A row's bits differ from those in a task
// of fewer rows, whose sums run in another order; on either side they do not depend on the other rows.
//
// - Scores are products of keys, in their natural layout, with packed queries, as those of weights with packed inputs.
// - Probabilities become two bfloat16 each, the second being what rounding took from the first: together they are within
//   2^-17 of the float32 probability, where the result is rounded to 2^-9.
// - Values are packed in pairs of keys. Those that are no numbers are left out and added alone, to the rows that see
//   them: tiles multiply the zero weight of a key that a row does not see, too.
#pragma once

#include "amx/block.inl"

namespace {

static_assert(kMaxQueryRows == kBlock && kKeyBlock == kTileCols, "the scores of a pass are blocks of sums");

// What tiles need besides the state, in AttentionState::rest.
struct TileMemory {
  int64_t width;
  char* queries;      // packed
  BFloat16* rounded;  // [kMaxQueryRows][kKeyBlock]: probabilities
  BFloat16* left;     // the same: what rounding took from them
  BFloat16* values;   // [kKeyBlock / 2][width][2]
  BFloat16* rows;     // [kBlock][head_dim]: queries or keys side by side

  TileMemory(char* base, int64_t head_dim)
      : width(padded_width(head_dim, kBlock)),
        queries(base),
        rounded(reinterpret_cast<BFloat16*>(base + pack_bytes<BFloat16>(kMaxQueryRows, head_dim))),
        left(rounded + kMaxQueryRows * kKeyBlock),
        values(left + kMaxQueryRows * kKeyBlock),
        rows(values + kKeyBlock * width) {}

  static size_t bytes(int64_t head_dim) {
    const int64_t probabilities = 2 * kMaxQueryRows * kKeyBlock;
    const int64_t elements = probabilities + kKeyBlock * padded_width(head_dim, kBlock) + kBlock * head_dim;
    return pack_bytes<BFloat16>(kMaxQueryRows, head_dim) + sizeof(BFloat16) * static_cast<size_t>(elements);
  }
};

inline void copy_rows(const BFloat16* const* rows, int count, int64_t width, BFloat16* out) {
  for (int i = 0; i < count; ++i) std::memcpy(out + i * width, rows[i], sizeof(BFloat16) * static_cast<size_t>(width));
}

inline bool evenly_spaced(const BFloat16* const* rows, int count, int64_t stride) {
  for (int i = 1; i < count; ++i) {
    if (rows[i] != rows[i - 1] + stride) return false;
  }
  return true;
}

// A row's probabilities -> their two parts. The scores of a block in which it sees no key are no probabilities.
inline void split_probabilities(const AttentionState& state, int row, int64_t first_key, const TileMemory& memory) {
  const bool sees_keys = visible_keys(state, row, first_key) > 0;
  for (int i = row * kKeyBlock; i < (row + 1) * kKeyBlock; i += 2 * Vec::kLanes) {
    const Vec first = sees_keys ? Vec::load(state.scores + i) : Vec::zero();
    const Vec second = sees_keys ? Vec::load(state.scores + i + Vec::kLanes) : Vec::zero();
    const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v));
    const Vec first_left = first - Vec{widen(memory.rounded, _mm512_castsi512_si256(rounded))};
    const Vec second_left = second - Vec{widen(memory.rounded, _mm512_extracti64x4_epi64(rounded, 1))};
    _mm512_storeu_si512(memory.rounded + i, rounded);
    _mm512_storeu_si512(memory.left + i, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second_left.v, first_left.v)));
  }
}

// Where 32 bfloat16 are infinite or NaN: all bits of the exponent are set.
inline __mmask32 no_numbers(__m512i values) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  return _mm512_cmpeq_epi16_mask(_mm512_and_si512(values, exponent), exponent);
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
inline bool pack_values(const BFloat16* const* values, int keys, int64_t head_dim, const TileMemory& memory) {
  __m512i highest = _mm512_setzero_si512();
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  const auto load = [&](int key, int64_t d) {
    return key < keys ? load_step(values[key] + d, head_dim - d) : _mm512_setzero_si512();
  };
  for (int key = 0; key < padded_width(keys, kStepInner<BFloat16>); key += 2) {
    for (int64_t d = 0; d < memory.width; d += kBlock) {
      const __m512i even = load(key, d), odd = load(key + 1, d);
      highest = _mm512_max_epu16(highest, _mm512_and_si512(even, magnitude));
      highest = _mm512_max_epu16(highest, _mm512_and_si512(odd, magnitude));
      store_pairs(even, odd, memory.values + key * memory.width + 2 * d);
    }
  }
  return no_numbers(highest) == 0;
}

inline void clear_no_numbers(const TileMemory& memory) {
  BFloat16* end = memory.values + kKeyBlock * memory.width;
  for (BFloat16* p = memory.values; p < end; p += 2 * Vec::kLanes) {
    const __m512i values = _mm512_loadu_si512(p);
    _mm512_storeu_si512(p, _mm512_maskz_mov_epi16(~no_numbers(values), values));
  }
}

// The sums of all rows += probabilities . packed values.
inline void add_tiles(AttentionState& state, const TileMemory& memory) {
  constexpr int64_t kWeightBytes = kKeyBlock * sizeof(BFloat16), kSecond = kTileRowsAmx * kKeyBlock;
  const int64_t sum_bytes = state.width * static_cast<int64_t>(sizeof(float));
  const BFloat16* const parts[] = {memory.rounded, memory.left};
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
      tile_load<4>(pairs, pair_bytes);
      tile_load<5>(pairs + 2 * kTileRowsAmx, pair_bytes);
      for (const BFloat16* part : parts) {
        tile_load<6>(part + key, kWeightBytes);
        tile_load<7>(part + kSecond + key, kWeightBytes);
        tile_dot_bf16<0, 6, 4>();
        tile_dot_bf16<1, 6, 5>();
        tile_dot_bf16<2, 7, 4>();
        tile_dot_bf16<3, 7, 5>();
      }
    }
    tile_store<0>(sums, sum_bytes);
    tile_store<1>(sums + kTileRowsAmx, sum_bytes);
    tile_store<2>(below, sum_bytes);
    tile_store<3>(below + kTileRowsAmx, sum_bytes);
  }
}

// The values of one key that are no numbers, to the sums of the rows that see it.
inline void add_no_numbers(AttentionState& state, const BFloat16* values, int key, int64_t first_key,
                           int64_t head_dim) {
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

// The two products of attention on tiles: all rows of a pass belong to one kv head.
struct TileProducts {
  static constexpr int64_t kWidth = kBlock;

  static void begin(const AttentionArgs& args, AttentionState& state, const BFloat16* const* queries, int rows) {
    const TileMemory memory(state.rest, args.head_dim);
    copy_rows(queries, rows, args.head_dim, memory.rows);
    const auto* unpacked = reinterpret_cast<const char*>(memory.rows);
    for (int64_t strip = 0; strip < pack_tasks(rows); ++strip) {
      pack<BFloat16, 0>(unpacked, args.head_dim, rows, args.head_dim, memory.queries, strip);
    }
    // Tiles have rows for which there is no query.
    const auto missing = static_cast<size_t>((kMaxQueryRows - rows) * state.width);
    std::memset(state.sums + rows * state.width, 0, sizeof(float) * missing);
    std::memset(memory.rounded, 0, 2 * sizeof(BFloat16) * kMaxQueryRows * kKeyBlock);
  }

  static void score(const AttentionArgs& args, AttentionState& state, const BFloat16* const*,
                    const BFloat16* const* keys, int, int64_t) {
    const TileMemory memory(state.rest, args.head_dim);
    for (int key = 0; key < state.keys; key += kBlock) {
      const int count = state.keys - key < kBlock ? state.keys - key : kBlock;
      const BFloat16* first = keys[key];
      int64_t stride = args.key_token_stride;
      if (!evenly_spaced(keys + key, count, stride)) {
        copy_rows(keys + key, count, args.head_dim, memory.rows);
        first = memory.rows;
        stride = args.head_dim;
      }
      const Tile block{0, 0, state.rows_per_head, 0, count};
      const auto* w = reinterpret_cast<const char*>(first);
      multiply_block<BFloat16>(memory.queries, w, stride, block, args.head_dim, 0, [] {});
      TileSums<float> products;
      products.take(block);
      for (int tile = 0; tile < tiles_of(block); ++tile) products.turn(tile, state.scores + key);
    }
  }

  static void add(const AttentionArgs& args, AttentionState& state, const BFloat16* const* values, int,
                  int64_t first_key, int64_t) {
    const TileMemory memory(state.rest, args.head_dim);
    for (int row = 0; row < state.rows_per_head; ++row) split_probabilities(state, row, first_key, memory);
    const bool all_numbers = pack_values(values, state.keys, args.head_dim, memory);
    if (!all_numbers) clear_no_numbers(memory);
    add_tiles(state, memory);
    if (all_numbers) return;
    for (int key = 0; key < state.keys; ++key) add_no_numbers(state, values[key], key, first_key, args.head_dim);
  }
};

size_t attention_scratch_amx(const AttentionArgs& args) {
  const size_t tiles = state_bytes(args, TileProducts::kWidth) + TileMemory::bytes(args.head_dim);
  const size_t vectors = attention_scratch(args);
  return tiles > vectors ? tiles : vectors;
}

void attention_amx(const AttentionArgs& args, const AttentionTask& task, void* scratch) {
  const bool many_rows = task.rows * (args.heads / args.kv_heads) > kTileRowsAmx;
  if (!args.any_order || !many_rows || args.key_scale != nullptr) return attention<BFloat16>(args, task, scratch);
  const TileScope scope;
  attend<BFloat16, BFloat16, TileProducts>(args, task, scratch);
}

}  // namespace
