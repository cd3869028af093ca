// SPDX-License-Identifier: Apache-2.0
// Kernel table of the avx512 instruction set.
#include "avx512/vec.h"

#include "avx512/dot.h"

#include "dispatch/tables.h"
#include "kernels/all.inl"

namespace vmo {

const KernelTable* avx512_kernels() {
  static const KernelTable table = kernel_table("avx512");
  return &table;
}

}  // namespace vmo
