// SPDX-License-Identifier: Apache-2.0
// Kernel table of the avx2 instruction set.
#include "avx2/vec.h"

#include "avx2/dot.h"

#include "dispatch/tables.h"
#include "kernels/all.inl"

namespace vmo {

const KernelTable* avx2_kernels() {
  static const KernelTable table = kernel_table("avx2");
  return &table;
}

}  // namespace vmo
