// SPDX-License-Identifier: Apache-2.0
// The kernel table of each instruction-set folder.
#pragma once

#include "vmo/kernel_table.h"

namespace vmo {

const KernelTable* generic_kernels();
const KernelTable* avx2_kernels();
const KernelTable* avx512_kernels();
const KernelTable* avx512_bf16_kernels();
const KernelTable* amx_kernels();
// Needs more than the table beside which it is used.
const SparseKernels* avx512_vbmi2_sparse();

}  // namespace vmo
