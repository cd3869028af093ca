// SPDX-License-Identifier: Apache-2.0
// Kernel table of the generic instruction set.
#include "generic/vec.h"

#include "generic/dot.h"

#include "dispatch/tables.h"
#include "kernels/all.inl"

namespace vmo {

const KernelTable* generic_kernels() {
  static const KernelTable table = kernel_table("generic");
  return &table;
}

}  // namespace vmo
