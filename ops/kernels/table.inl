// SPDX-License-Identifier: Apache-2.0
// Fills a kernel table from the templates above.
#pragma once

namespace {

template <class T>
ElementKernels element_kernels() {
  ElementKernels kernels{};
  kernels.linear = linear<T>;
  kernels.gate_up = gate_up<T>;
  kernels.quantize = quantize<T>;
  kernels.int8_linear = int8_linear<T>;
  kernels.int8_store = store_dequantized<T>;
  if constexpr (sizeof(T) == 2) {
    kernels.int8_weight = weight_only<T, int8_t>;
    kernels.int4_weight = weight_only<T, Int4Pair>;
  }
  kernels.norm = norm<T>;
  kernels.rotary = rotary<T>;
  kernels.activation = activation<T>;
  kernels.accumulate = accumulate<T>;
  kernels.sum = sum<T>;
  kernels.attention_scratch = attention_scratch;
  kernels.attention = attention<T>;
  kernels.peak = peak<T>;
  return kernels;
}

inline KernelTable kernel_table(const char* name) {
  return {name, {element_kernels<float>(), element_kernels<Half>(), element_kernels<BFloat16>()}, {}};
}

}  // namespace
