// SPDX-License-Identifier: Apache-2.0
// Compressed weights on CPUs with AVX-512 VBMI2, VNNI and VPOPCNTDQ, whichever of the AVX-512 tables is in force.
#include "avx512/vec.h"

#include "avx512_vbmi2/expand.h"

#include "dispatch/tables.h"
#include "kernels/sparse.inl"
#include "kernels/sparse_sums.inl"

#include "avx512_vbmi2/skip.inl"
#include "avx512_vbmi2/sums.inl"

namespace vmo {

const SparseKernels* avx512_vbmi2_sparse() {
  static const SparseKernels kernels{expand_rows, skip_rows_quickly, sparse_sums, kSparseSumRows, nullptr};
  return &kernels;
}

}  // namespace vmo
