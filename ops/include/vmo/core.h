// SPDX-License-Identifier: Apache-2.0
// The checked, threaded operations on tensor views. Neither MindSpore nor an instruction set is known here.
//
// Common rules. Dense operands are float32, float16 or bfloat16, all of one dtype unless said otherwise. Inputs may
// have any strides; row strides cost nothing, other layouts are copied first. Outputs must be gap-free. Every index
// read from data is checked before anything is written. Each function returns kOk, or kError after recording a message
// (`op` is the name shown in it).
#pragma once

#include "vmo/error.h"
#include "vmo/tensor_view.h"

namespace vmo {

// y[..., N1+N2+..] = x[..., K] . w_i[N_i, K]^T (+ bias_i[N_i]), 1 to 3 weights; accumulates in float32 and rounds
// once. y has the operands' dtype or float32. bias is null or an array of `weights` views.
Status linear(const char* op, const TensorView& x, int weights, const TensorView* w, const TensorView* bias,
              const TensorView& y);

// y[M, N] = op(a) . op(b), op transposing when asked. Fast for transpose_b only; float64 and integer types run a plain
// loop that accumulates in their own type (bool is refused).
Status matmul(const char* op, const TensorView& a, const TensorView& b, bool transpose_a, bool transpose_b,
              const TensorView& y);

// y[..., I] = silu(x . gate[I, K]^T) * (x . up[I, K]^T); both products are rounded to the dtype first.
Status gate_up_swiglu(const char* op, const TensorView& x, const TensorView& gate, const TensorView& up,
                      const TensorView& y);

// How activations become int8 codes: clip(round(x / scale + offset)), clip(round(x * scale + offset)), or by the largest
// magnitude of each row of x * scale.
enum class CodeKind : int32_t { kDivide, kMultiply, kPerToken };

struct ActivationCodes {
  CodeKind kind;
  TensorView scale;   // float32 [K]; per token it may be null data: no factors
  TensorView offset;  // float32 [K]; null data per token
};

// codes int8 [..., K] of x; token_scale float32 with one value per row, or null data with static scales. The rounding
// of vllm_mindspore/quantization/primitives.py, to the last bit.
Status quantize(const char* op, const TensorView& x, const ActivationCodes& how, const TensorView& codes,
                const TensorView& token_scale);
// The same of rows that are computed one by one, and exist nowhere else: y of rms_norm, or of add_rms_norm where residual
// has data (then with its sum).
Status norm_codes(const char* op, const TensorView& x, const TensorView& residual, const TensorView& gamma,
                  double epsilon, const ActivationCodes& how, const TensorView& codes, const TensorView& token_scale,
                  const TensorView& sum);

// A weight of int8 codes and what turns sums into values.
struct Int8Weight {
  TensorView weight;      // int8 [N, K]; or compressed: its stream int8 [C], N being that of scale
  TensorView scale;       // float32 [N]
  TensorView quant_bias;  // int32 [N], added to the sums, or null data
  TensorView bias;        // [N] in the dtype of y, added to the rounded value, or null data
  TensorView index;       // int8 [8 * tiles] of a compressed weight, else null data
};

// y[..., N1+N2+..] = (codes . weight_i^T + quant_bias_i) * scale_i (* token_scale), rounded once, (+ bias_i). codes
// int8 [..., K]; token_scale float32 with one value per row, or null data; y of any dense dtype.
Status int8_linear(const char* op, const TensorView& codes, const TensorView& token_scale, int weights,
                   const Int8Weight* w, const TensorView& y);

// Compressed weights: docs/sparse_quant_format.md. Of int8 weights [N, K] the index, and the bytes that their stream needs.
Status sparse_index(const char* op, const TensorView& weight, const TensorView& index, int64_t* stream_bytes);
// The stream for an index that sparse_index has made of the same weight.
Status sparse_encode(const char* op, const TensorView& weight, const TensorView& index, const TensorView& stream);
// Checks every bit; what it accepts, sparse_encode could have written, but for encodings that are longer than needed.
Status sparse_validate(const char* op, const TensorView& stream, const TensorView& index, int64_t outputs, int64_t inputs);
// weight int8 [N, K] of a stream; bits that do not fit give other weights or an error.
Status sparse_decode(const char* op, const TensorView& stream, const TensorView& index, const TensorView& weight);

// A weight of codes for floats.
enum class WeightCodes : int32_t { kInt4 = 4, kInt8 = 8 };

constexpr int64_t kInt4Block = 64;  // elements along K that lie together
inline int64_t int4_row_bytes(int64_t inner) { return (inner / kInt4Block + (inner % kInt4Block != 0)) * (kInt4Block / 2); }

struct CodedWeight {
  // int8 [N, K]; or for int4 [N, 32 * ceil(K / 64)]: of each 64 elements, byte i holds element i in its low half and
  // element 32 + i in its high half, two's complement.
  TensorView weight;
  TensorView scale;   // float32 [N], or [N, K / group]
  TensorView offset;  // like scale, added to the codes; or null data
  TensorView bias;    // [N] in the dtype of x, or null data
};

// y[..., N1+N2+..] = x . ((weight_i + offset_i) * scale_i)^T (+ bias_i) of x [..., K] float16 or bfloat16, accumulated in
// float32 and rounded once; y has the dtype of x or float32. `group`: elements along K that share a scale, a multiple of
// 64 that divides K; 0: all of them.
Status weight_only_linear(const char* op, const TensorView& x, WeightCodes codes, int64_t group, int weights,
                          const CodedWeight* w, const TensorView& y);

// out[T, sum of N_i] = y + per row t the product of x[t, K] with adapter slots[t]: inner = x . a[slot, parts * R, K]^T,
// rounded to the dtype, then part i of out gets inner[i * R : (i + 1) * R] . b_i[N_i, slot, R]^T, added in float32 and
// rounded once. A negative slot leaves the row as it is. slots int32 or int64 [T]; 1 to 3 parts.
Status lora(const char* op, const TensorView& y, const TensorView& x, const TensorView& slots, const TensorView& a,
            int parts, const TensorView* b, const TensorView& out);

// out[batch..., outer..., indices..., inner...] as numpy.take along `axis`, the first `batch_dims` axes being shared.
// Any dtype; negative indices count from the end; others out of range are errors.
Status gather(const char* op, const TensorView& params, const TensorView& indices, int64_t axis, int64_t batch_dims,
              const TensorView& out);

// y = round(x * rstd * gamma), rstd = 1 / sqrt(mean(x^2) + epsilon) over the trailing axes gamma covers.
// rstd is float32 with one value per normalised row, or null data.
Status rms_norm(const char* op, const TensorView& x, const TensorView& gamma, double epsilon, const TensorView& y,
                const TensorView& rstd);

// sum = round(x + residual); then rms_norm of the rounded sum.
Status add_rms_norm(const char* op, const TensorView& x, const TensorView& residual, const TensorView& gamma,
                    double epsilon, const TensorView& y, const TensorView& rstd, const TensorView& sum);

// x [T, H * head_dim] -> y of the same shape; the first R elements of each head are rotated by cos, sin [T, R]
// (float32 or the dtype of x), the others copied. interleaved pairs (2i, 2i+1), else (i, i + R/2).
Status rotary(const char* op, const TensorView& x, const TensorView& cos, const TensorView& sin, int64_t head_dim,
              bool interleaved, const TensorView& y);

// y[..., M] = silu(x[..., :M]) * x[..., M:] along `axis` of extent 2M.
Status swiglu(const char* op, const TensorView& x, int64_t axis, const TensorView& y);
Status silu(const char* op, const TensorView& x, const TensorView& y);

// Copies row t of key and value [T, KH, D] (or [T, KH * D]) to slot slot_mapping[t] of the caches [NB, BS, KH, D];
// a negative slot skips the row. value and value_cache may be null. slot_mapping int32 or int64 [T].
Status reshape_and_cache(const char* op, const TensorView& key, const TensorView& value, const TensorView& key_cache,
                         const TensorView& value_cache, const TensorView& slot_mapping);

// Shapes of the paged attention operations.
struct PagedSequences {
  TensorView block_tables;  // int32 [B, MAXB]
  TensorView context_lens;  // int32 [B]: keys of the sequence, this step's included
  TensorView query_lens;    // int32 [B]: query tokens of the sequence; null data: 1 each
};

// query, out [T, H * D]; caches [NB, BS, KH, D]. Query token i of n in a sequence with c keys sees keys
// 0 .. c - n + i. Tokens past the sum of query_lens are padding: their output is zero. Caches are int8 with cache_scales,
// those of AttentionBlock.
Status paged_attention(const char* op, const TensorView& query, const TensorView& key_cache,
                       const TensorView& value_cache, const PagedSequences& sequences, int64_t heads, int64_t kv_heads,
                       double scale, const TensorView& out, const TensorView& cache_scales = TensorView{});

struct AttentionBlock {
  TensorView qkv;            // [T, (H + 2 KH) * D]
  TensorView query_gamma;    // [D], used when qk_norm
  TensorView key_gamma;      // [D]
  TensorView cos, sin;       // [T, R], float32 or the dtype of qkv
  TensorView slot_mapping;   // int32 [T]
  PagedSequences sequences;
  TensorView key_cache, value_cache;  // [NB, BS, KH, D], written in place
  // float32 [4, KH * D] of int8 caches: key scale, key offset, value scale, value offset. Null data: caches of qkv's dtype.
  TensorView cache_scales;
  int64_t heads, kv_heads, head_dim, rotary_dim;
  bool interleaved, qk_norm;
  double scale, epsilon;
};

// out [T, H * D] = paged_attention after per-head RmsNorm of q and k (qk_norm), rotary embedding and cache write;
// rounds at the same points as that chain, so it equals the chain bit for bit. int8 caches get the codes
// clip(round(k / scale + offset)) of rounded, rotated keys and of values, and attention takes (code - offset) * scale.
Status attention_block(const char* op, const AttentionBlock& args, const TensorView& out);

// Value conversion between any two dtypes. Floats to integers truncate towards zero, saturating at the 64-bit range,
// then wrap to the width; NaN becomes 0; complex to real drops the imaginary part; bool is "not zero".
Status cast(const char* op, const TensorView& x, const TensorView& y);
// Gap-free copy.
Status copy(const char* op, const TensorView& x, const TensorView& y);
// Splits x along `axis` into consecutive outputs.
Status split(const char* op, const TensorView& x, int64_t axis, int outputs, const TensorView* out);

}  // namespace vmo
