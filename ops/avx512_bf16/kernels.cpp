// SPDX-License-Identifier: Apache-2.0
// Kernel table of the avx512_bf16 instruction set.
#include "avx512_bf16/vec.h"

#include "avx512_bf16/dot.h"

#include "dispatch/tables.h"
#include "kernels/all.inl"

namespace vmo {

const KernelTable* avx512_bf16_kernels() {
  static const KernelTable table = kernel_table("avx512_bf16");
  return &table;
}

}  // namespace vmo
