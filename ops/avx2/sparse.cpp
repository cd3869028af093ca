// SPDX-License-Identifier: Apache-2.0
// Compressed weights on CPUs with AVX2, and on those with AVX-512 that lack VBMI2.
#include "avx2/vec.h"

#include "avx2/dot.h"
#include "avx2/expand.h"

#include "dispatch/tables.h"
#include "kernels/sparse.inl"
#include "kernels/sparse_sums.inl"

#include "avx2/sums.inl"

namespace vmo {

const SparseKernels* avx2_sparse() {
  static const SparseKernels kernels{expand_rows, skip_rows, sparse_sums, kMostRows, nullptr};
  return &kernels;
}

}  // namespace vmo
