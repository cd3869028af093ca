// SPDX-License-Identifier: Apache-2.0
// Kernel table of the amx instruction set.
#include "amx/vec.h"

#include "amx/dot.h"

#include "dispatch/tables.h"
#include "kernels/all.inl"

#include "amx/table.inl"

namespace vmo {

const KernelTable* amx_kernels() {
  static const KernelTable table = amx_kernel_table();
  return &table;
}

}  // namespace vmo
