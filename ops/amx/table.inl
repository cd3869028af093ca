// SPDX-License-Identifier: Apache-2.0
// The kernel table of the amx folder.
#pragma once

#include "amx/attention.inl"
#include "amx/matmul.inl"
#include "amx/weight_only.inl"

namespace {

template <class T>
inline void set_attention(ElementKernels* kernels) {
  kernels->attention_scratch = attention_scratch_amx<T>;
  kernels->attention = attention_amx<T>;
}

// The AVX-512 kernels with the products of bfloat16 and int8, and weights of codes and attention of both 16-bit types, on tiles.
inline KernelTable amx_kernel_table() {
  const auto packs = [](int64_t rows) { return rows > kSmallRows; };
  KernelTable table = kernel_table("amx");
  set_packed(&table, linear_amx, gate_up_amx, packs);
  set_int8(&table, int8_linear_amx<float>, int8_linear_amx<Half>, int8_linear_amx<BFloat16>, packing<int8_t>(packs));
  set_attention<Half>(&table.by_dtype[1]);
  set_attention<BFloat16>(&table.by_dtype[2]);
  // Two parts of each element are twice the work.
  set_weight_only<Half>(&table.by_dtype[1], [](int64_t rows) { return rows > 2 * kSmallRows; });
  set_weight_only<BFloat16>(&table.by_dtype[2], packs);
  return table;
}

}  // namespace
