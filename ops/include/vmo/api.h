// SPDX-License-Identifier: Apache-2.0
// The C functions of the shared library, as ctypes sees them. MindSpore's entry points are in plugin/.
//
// Functions returning int give 0, or 1 after recording a message that vmo_last_error() returns.
#pragma once

#include "vmo/tensor_view.h"

#define VMO_API extern "C" __attribute__((visibility("default")))

// ---- control
VMO_API const char* vmo_version();
// Instruction set in force ("" when VLLM_MS_CPU_ISA asks for one that is not available).
VMO_API const char* vmo_isa_name();
// 1 when the named instruction set can be used here, else 0.
VMO_API int vmo_isa_supported(const char* name);
VMO_API int vmo_set_isa(const char* name);
// 0: compressed weights are read without AVX-512 VBMI2 (tests).
VMO_API void vmo_set_vbmi2(int on);
VMO_API int vmo_num_threads();
VMO_API int vmo_set_num_threads(int n);
VMO_API const char* vmo_last_error();
VMO_API void vmo_clear_error();
// 1: no row of a matrix product depends on how many rows there are. 0: it may, where that is quicker (bfloat16 products).
VMO_API void vmo_set_batch_invariant(int on);
// 1: MindSpore entry points return success without doing anything.
VMO_API void vmo_set_noop(int on);
// Between the two calls the places of all outputs are recorded; the second returns the bytes they occupy, memory that
// was reused counted once.
VMO_API void vmo_start_footprint();
VMO_API int64_t vmo_stop_footprint();
VMO_API void vmo_enable_stats(int on);
VMO_API void vmo_reset_stats();
// Calls and nanoseconds spent in a MindSpore entry point since the last reset.
VMO_API int vmo_op_stats(const char* name, int64_t* calls, int64_t* nanoseconds);

// ---- ranks (see collectives/collectives.h)
// Rank 0 makes the group's memory; *fd is its descriptor in this process, for the caller to close once all have joined.
VMO_API int vmo_group_create(int count, int* fd);
VMO_API int vmo_group_join(int pid, int fd, int rank, int count);
VMO_API void vmo_group_leave();
VMO_API void vmo_group_stop(const char* reason);
VMO_API void vmo_group_set_patience(double seconds);
VMO_API int vmo_group_rank();
VMO_API int vmo_group_count();
VMO_API int vmo_all_reduce(const vmo::TensorView* x, const vmo::TensorView* y);
VMO_API int vmo_all_gather(const vmo::TensorView* x, const vmo::TensorView* y);
// y is not read on other ranks than 0.
VMO_API int vmo_gather_columns(const vmo::TensorView* x, const vmo::TensorView* y);
VMO_API int vmo_broadcast(const vmo::TensorView* x, int root);

// ---- operations (see core.h); optional tensors may be null pointers
using vmo_tensor = vmo::TensorView;
VMO_API int vmo_core_linear(const vmo_tensor* x, int weights, const vmo_tensor* w, const vmo_tensor* bias,
                            const vmo_tensor* y);
VMO_API int vmo_core_matmul(const vmo_tensor* a, const vmo_tensor* b, int transpose_a, int transpose_b,
                            const vmo_tensor* y);
VMO_API int vmo_core_gate_up_swiglu(const vmo_tensor* x, const vmo_tensor* gate, const vmo_tensor* up,
                                    const vmo_tensor* y);
// kind: 0 divides by the scale, 1 multiplies with it, 2 finds a scale for each row.
VMO_API int vmo_core_quantize(const vmo_tensor* x, int kind, const vmo_tensor* scale, const vmo_tensor* offset,
                              const vmo_tensor* codes, const vmo_tensor* token_scale);
// The codes of what rms_norm (no residual, no sum) or add_rms_norm gives.
VMO_API int vmo_core_norm_codes(const vmo_tensor* x, const vmo_tensor* residual, const vmo_tensor* gamma, double epsilon,
                                int kind, const vmo_tensor* scale, const vmo_tensor* offset, const vmo_tensor* codes,
                                const vmo_tensor* token_scale, const vmo_tensor* sum);
// For each weight four tensors: weight, scale, quant_bias and bias; the last two may be absent (null data).
VMO_API int vmo_core_int8_linear(const vmo_tensor* codes, const vmo_tensor* token_scale, int weights,
                                 const vmo_tensor* w, const vmo_tensor* y);
// The same of compressed weights: for each five tensors, stream, scale, quant_bias, bias and index.
VMO_API int vmo_core_sparse_linear(const vmo_tensor* codes, const vmo_tensor* token_scale, int weights,
                                   const vmo_tensor* w, const vmo_tensor* y);
// Compressed weights; stream_bytes: int64 [1].
VMO_API int vmo_core_sparse_index(const vmo_tensor* weight, const vmo_tensor* index, const vmo_tensor* stream_bytes);
VMO_API int vmo_core_sparse_encode(const vmo_tensor* weight, const vmo_tensor* index, const vmo_tensor* stream);
VMO_API int vmo_core_sparse_validate(const vmo_tensor* stream, const vmo_tensor* index, int64_t outputs, int64_t inputs);
VMO_API int vmo_core_sparse_decode(const vmo_tensor* stream, const vmo_tensor* index, const vmo_tensor* weight);
// bits: 8 or 4. For each weight four tensors: weight, scale, offset and bias; the last two may be absent (null data).
VMO_API int vmo_core_weight_only_linear(const vmo_tensor* x, int bits, int64_t group, int weights, const vmo_tensor* w,
                                        const vmo_tensor* y);
VMO_API int vmo_core_lm_head(const vmo_tensor* hidden, const vmo_tensor* rows, const vmo_tensor* weight,
                             const vmo_tensor* y);
VMO_API int vmo_core_lora(const vmo_tensor* y, const vmo_tensor* x, const vmo_tensor* slots, const vmo_tensor* a,
                          int parts, const vmo_tensor* b, const vmo_tensor* out);
VMO_API int vmo_core_gather(const vmo_tensor* params, const vmo_tensor* indices, int64_t axis, int64_t batch_dims,
                            const vmo_tensor* y);
VMO_API int vmo_core_rms_norm(const vmo_tensor* x, const vmo_tensor* gamma, double epsilon, const vmo_tensor* y,
                              const vmo_tensor* rstd);
VMO_API int vmo_core_add_rms_norm(const vmo_tensor* x, const vmo_tensor* residual, const vmo_tensor* gamma,
                                  double epsilon, const vmo_tensor* y, const vmo_tensor* rstd, const vmo_tensor* sum);
VMO_API int vmo_core_rotary(const vmo_tensor* x, const vmo_tensor* cos, const vmo_tensor* sin, int64_t head_dim,
                            int interleaved, const vmo_tensor* y);
VMO_API int vmo_core_swiglu(const vmo_tensor* x, int64_t axis, const vmo_tensor* y);
VMO_API int vmo_core_silu(const vmo_tensor* x, const vmo_tensor* y);
VMO_API int vmo_core_reshape_and_cache(const vmo_tensor* key, const vmo_tensor* value, const vmo_tensor* key_cache,
                                       const vmo_tensor* value_cache, const vmo_tensor* slot_mapping);
VMO_API int vmo_core_paged_attention(const vmo_tensor* query, const vmo_tensor* key_cache,
                                     const vmo_tensor* value_cache, const vmo_tensor* block_tables,
                                     const vmo_tensor* context_lens, const vmo_tensor* query_lens, int64_t heads,
                                     int64_t kv_heads, double scale, const vmo_tensor* out);
// tensors: qkv, q_gamma, k_gamma, cos, sin, slot_mapping, block_tables, context_lens, q_seq_lens, key_cache,
// value_cache, int_attributes, float_attributes, maybe the scales of int8 caches: `inputs` tensors (those of
// vmo_attention_block in plugin/custom_ops.cpp), then out.
VMO_API int vmo_core_attention_block(const vmo_tensor* tensors, int inputs);
// The lists of core/sublayers.h and core/decoder_layers.h: `inputs` tensors, then y and sum.
VMO_API int vmo_core_attention_sublayer(const vmo_tensor* tensors, int inputs);
VMO_API int vmo_core_mlp_sublayer(const vmo_tensor* tensors, int inputs);
VMO_API int vmo_core_decoder_layers(const vmo_tensor* tensors, int inputs);
VMO_API int vmo_core_cast(const vmo_tensor* x, const vmo_tensor* y);
VMO_API int vmo_core_copy(const vmo_tensor* x, const vmo_tensor* y);
VMO_API int vmo_core_split(const vmo_tensor* x, int64_t axis, int outputs, const vmo_tensor* y);

// ---- measurement and tests
// Bytes per second of all threads reading `bytes` bytes (at least 256 KiB) once; 0 after an error.
VMO_API double vmo_measure_read_bandwidth(int64_t bytes);
// Floating-point operations per second of all threads, registers only, for the dtype (0 float32, 1 float16, 2 bfloat16).
VMO_API double vmo_measure_peak(int dtype);
// Runs `tasks` tasks; task i adds i + 1 to *sum (atomically) and spins for `work` iterations; with
// work < 0 every task throws, which makes the call fail.
VMO_API int vmo_test_pool(int64_t tasks, int64_t work, int64_t* sum);
