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
// What reads compressed weights, beside any table of its folder or above.
const SparseKernels* generic_sparse();
const SparseKernels* avx2_sparse();
const SparseKernels* avx512_vbmi2_sparse();
const SparseKernels* amx_sparse();

}  // namespace vmo
