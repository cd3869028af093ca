// SPDX-License-Identifier: Apache-2.0
// Kernel table of the avx512_bf16 instruction set.
#include "avx512_bf16/vec.h"

#include "avx512_bf16/dot.h"

#include "dispatch/tables.h"
#include "kernels/all.inl"

#include "avx512_bf16/matmul.inl"

namespace vmo {

const KernelTable* avx512_bf16_kernels() {
  static const KernelTable table = strip_kernel_table();
  return &table;
}

}  // namespace vmo
