// SPDX-License-Identifier: Apache-2.0
// The single-threaded kernels each instruction-set folder supplies, and their already validated arguments.
//
// Pointers need only be aligned to 1 byte. Strides count elements. Kernels trust their arguments: ops/core checks
// them first and splits the work between threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vmo {

constexpr int kMaxWeights = 3;
// Keys are visited in blocks of this many absolute positions, whatever the paging, chunking or batch.
constexpr int kKeyBlock = 64;
// Rows (query tokens times query heads) that one pass over the keys serves.
constexpr int kMaxQueryRows = 32;

// y[m, n] = sum_k x[m, k] * w[n, k] (+ bias[n]); the outputs of all weights lie side by side in a row of y.
struct LinearArgs {
  const char* x;
  int64_t ldx;
  int64_t rows;
  int64_t inner;
  int weights;
  const char* w[kMaxWeights];
  int64_t ldw[kMaxWeights];
  int64_t cols[kMaxWeights];
  const char* bias[kMaxWeights];  // null: no bias
  char* y;
  int64_t ldy;
  bool float_output;    // y is float32 whatever the operand type
  const char* packed;   // written by ElementKernels::pack; null: compute from x
};

// y[m, i] = silu(x[m] . gate[i]) * (x[m] . up[i]); both products are rounded to the element type first, as the
// unfused chain does.
struct GateUpArgs {
  const char* x;
  int64_t ldx;
  int64_t rows;
  int64_t inner;
  const char* gate;
  int64_t ldgate;
  const char* up;
  int64_t ldup;
  int64_t cols;
  char* y;
  int64_t ldy;
  const char* packed;
};

// codes[m, k] = clip(round(x[m, k] / scale[k] + offset[k])), with `multiply` x * scale in place of the quotient; or, per
// token, clip(round(t[m, k] / token_scale[m])), t = x * scale, token_scale[m] = max_k |t[m, k]| / 127.
struct QuantizeArgs {
  const char* x;
  int64_t ldx;
  int64_t cols;
  const float* scale;   // [cols]; per token it may be null: no factors
  const float* offset;  // [cols]; null per token
  int8_t* codes;        // rows lie side by side
  float* token_scale;   // null: not per token
  bool multiply;
};

// y[m, n] = (sum_k x[m, k] * w[n, k] + quant_bias[n]) * scale[n] (* token_scale[m]), rounded, then (+ bias[n]); the
// sums wrap like int32. The outputs of all weights lie side by side in a row of y.
struct Int8LinearArgs {
  const char* x;  // int8
  int64_t ldx;
  int64_t rows;
  int64_t inner;
  int weights;
  const char* w[kMaxWeights];  // int8
  int64_t ldw[kMaxWeights];
  int64_t cols[kMaxWeights];
  const char* scale[kMaxWeights];       // float32
  const char* quant_bias[kMaxWeights];  // int32; null: none
  const char* bias[kMaxWeights];        // of the output type; null: none
  const float* token_scale;             // [rows]; null: none
  char* y;
  int64_t ldy;
  const char* packed;
  // Of compressed weights: the entries of their tiles, then w is a stream of stream_bytes and ldw means nothing.
  const char* index[kMaxWeights];
  int64_t stream_bytes[kMaxWeights];
};

// Compressed weights are tiles of so many outputs and inputs, in words of 64 inputs (docs/sparse_quant_format.md).
constexpr int kSparseRows = 128, kSparseCols = 256, kSparseWord = 64;

enum class TileCoding : int32_t { kZero, kDense, kBitmap };

// The next row of a tile.
struct SparseCursor {
  TileCoding coding;
  int words;           // in a row
  const char* row;     // of a bitmap its masks, of a dense tile its weights
  const char* values;  // of a bitmap
  int value_bytes;     // of a row, about: of a length that is wrong anything
};

// Sums of `rows` rows of x with the next `cols` rows of all tiles of an output tile.
struct SparseSums {
  const int8_t* x;        // [rows, ldx], padded with zeros to whole words; or packed
  int64_t ldx;            // of packed rows: bytes of a strip
  const int32_t* shifts;  // [tiles, rows]: 128 times the sum of the inputs of a tile; null of packed rows
  int rows;
  SparseCursor* cursors;  // one for each tile along K
  int64_t tiles;
  const char* end;  // of the stream
  int cols;         // up to sparse_sum_cols(rows); of packed rows up to kSparseRows
  int32_t* sums;    // [cols / 64][rows][64]
};

constexpr int kSparseSumRows = 8;
// As many outputs at once as a first-level cache has vectors for.
constexpr int sparse_sum_cols(int64_t rows) { return rows <= 1 ? 128 : rows <= 3 ? 64 : 32; }
constexpr int kPackedSumRows = 32;

// What reads compressed weights. Whatever they hold: values are taken from no later than 64 bytes before `end`, so nothing
// behind it is read.
struct SparseKernels {
  // The next `rows` rows to `out`, `ld` apart, each of whole words.
  void (*expand)(SparseCursor* cursor, int rows, const char* end, int8_t* out, int64_t ld);
  // Passes over rows.
  void (*skip)(SparseCursor* cursor, int rows);
  void (*sums)(const SparseSums& args);  // null where sum_rows is 0
  int sum_rows;  // as many rows of x are added up as weights are expanded; more are faster with expanded weights
  // Up to kPackedSumRows rows that are packed as KernelTable::int8_packing does; null: none.
  void (*packed_sums)(const SparseSums& args);
};

// y[m, n] = sum over groups g of scale[n, g] * sum_{k in g} x[m, k] * (w[n, k] + offset[n, g]) (+ bias[n]), rounded
// once. int4 codes: blocks of 64 elements in 32 bytes, byte i holding elements i (low half) and 32 + i (high half); a row
// has whole blocks.
struct WeightOnlyArgs {
  const char* x;
  int64_t ldx;
  int64_t rows;
  int64_t inner;
  int weights;
  const char* w[kMaxWeights];
  int64_t ldw[kMaxWeights];  // bytes
  int64_t cols[kMaxWeights];
  const char* scale[kMaxWeights];   // float32 [cols, groups]
  const char* offset[kMaxWeights];  // float32 [cols, groups]; null: none
  const char* bias[kMaxWeights];    // of the type of x; null: none
  int64_t group;                    // elements of x; a multiple of 64 unless there is one group
  int64_t groups;
  char* y;
  int64_t ldy;
  bool float_output;
  const char* packed;  // by ElementKernels::code_packing; null: compute from x
};

// Part of an output: rows [m0, m1) and columns [n0, n1) of weight `weight`.
struct Tile {
  int weight;
  int64_t m0, m1, n0, n1;
};

// sum = round(x + residual) (when residual is given), y = round(sum * rstd * gamma),
// rstd = 1 / sqrt(mean(sum^2) + epsilon).
struct NormArgs {
  const char* x;
  int64_t ldx;
  const char* residual;  // null: plain RmsNorm
  int64_t ldresidual;
  const char* gamma;
  float epsilon;
  int64_t cols;
  char* y;
  int64_t ldy;
  float* rstd;  // null: not wanted
  char* sum;    // null unless residual
  int64_t ldsum;
};

// Rotates the first `rotary_dim` elements of each head, copies the rest. cos and sin rows have rotary_dim
// elements of float32 (cos_is_float) or of the element type.
struct RotaryArgs {
  const char* x;
  int64_t ldx;  // between tokens; heads are head_dim apart
  int64_t heads;
  int64_t head_dim;
  int64_t rotary_dim;
  bool interleaved;  // pairs (2i, 2i+1) instead of (i, i + rotary_dim / 2)
  const char* cos;
  const char* sin;
  int64_t ldcos;
  int64_t ldsin;
  bool cos_is_float;
  char* y;
  int64_t ldy;
};

// y = silu(gate) (up null) or silu(gate) * up, computed in float32 and rounded once.
struct ActivationArgs {
  const char* gate;
  const char* up;
  int64_t ldx;  // of gate and up
  int64_t cols;
  char* y;
  int64_t ldy;
};

// Causal paged attention; see core/attention.cpp for shapes. Caches hold elements of the query's type or, with scales,
// int8 codes.
struct AttentionArgs {
  const char* query;
  int64_t ldquery;
  const char* key_cache;
  const char* value_cache;
  int64_t key_block_stride, key_token_stride;
  int64_t value_block_stride, value_token_stride;
  const float* key_scale;  // [kv_heads * head_dim], like the next two; null: no codes
  const float* value_scale;
  const float* value_offset;
  const int32_t* block_tables;
  int64_t ldtables;
  int64_t block_size;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  float scale;
  char* out;
  int64_t ldout;
  bool any_order;  // sums of tasks with many rows may run in another order than those of tasks with few
};

// Query tokens [first_row, first_row + rows) of q, whose first token has `first_limit` visible keys (each later
// token sees one more), against the keys of kv heads [kv_head, kv_head + kv_heads) of sequence `sequence`. Several kv
// heads are taken together when they have few rows: their keys are neighbours in memory.
struct AttentionTask {
  int32_t sequence;
  int32_t kv_head;
  int32_t kv_heads;  // above 1 only if kv_heads * rows * (heads per kv head) <= kMaxQueryRows
  int32_t rows;
  int64_t first_row;
  int64_t first_limit;
};

// How rows of x are packed for products with many of them. All null where they never are.
struct Packing {
  bool (*packs)(int64_t rows);  // whether products of so many rows are computed from packed rows
  size_t (*bytes)(int64_t rows, int64_t inner);
  int64_t (*tasks)(int64_t rows);
  void (*pack)(const char* x, int64_t ldx, int64_t rows, int64_t inner, char* packed, int64_t task);
};

// Kernels of one element type.
struct ElementKernels {
  void (*linear)(const LinearArgs& args, const Tile& tile);
  void (*gate_up)(const GateUpArgs& args, const Tile& tile);
  Packing packing;
  void (*quantize)(const QuantizeArgs& args, int64_t row0, int64_t row1);
  void (*int8_linear)(const Int8LinearArgs& args, const Tile& tile);
  // What follows the sums of a tile of up to 64 columns, whose rows are 64 apart.
  void (*int8_store)(const Int8LinearArgs& args, const Tile& tile, const int32_t* sums);
  // By the codes of the weights; null for float32.
  Packing code_packing;
  void (*int8_weight)(const WeightOnlyArgs& args, const Tile& tile);
  void (*int4_weight)(const WeightOnlyArgs& args, const Tile& tile);
  void (*norm)(const NormArgs& args, int64_t row0, int64_t row1);
  void (*rotary)(const RotaryArgs& args, int64_t token0, int64_t token1);
  void (*activation)(const ActivationArgs& args, int64_t row0, int64_t row1);
  // row[i] = round(row[i] + terms[i])
  void (*accumulate)(const float* terms, int64_t count, char* row);
  // out[i] = round(parts[0][i] + parts[1][i] + ..), `count` parts of `length` elements; out may be one of them
  void (*sum)(const char* const* parts, int count, int64_t length, char* out);
  size_t (*attention_scratch)(const AttentionArgs& args);
  void (*attention)(const AttentionArgs& args, const AttentionTask& task, void* scratch);
  // Multiply-adds in registers only; returns the floating-point operations done (for the benchmark's peak).
  double (*peak)(int64_t iterations);
};

struct KernelTable {
  const char* name;
  ElementKernels by_dtype[3];  // indexed by DType
  Packing int8_packing;
};

}  // namespace vmo
