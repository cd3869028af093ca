// SPDX-License-Identifier: Apache-2.0
// Compressed weights on CPUs with AMX: they all have what the reader of AVX-512 VBMI2 needs.
#include "avx512/vec.h"

#include "avx512_vbmi2/expand.h"

#include "dispatch/tables.h"
#include "kernels/sparse.inl"
#include "kernels/sparse_sums.inl"

#include "amx/packed_sums.inl"

namespace vmo {

const SparseKernels* amx_sparse() {
  static const SparseKernels kernels = [] {
    SparseKernels made = *avx512_vbmi2_sparse();
    made.packed_sums = packed_sums;
    return made;
  }();
  return &kernels;
}

}  // namespace vmo
