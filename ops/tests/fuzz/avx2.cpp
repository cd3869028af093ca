// SPDX-License-Identifier: Apache-2.0
// The AVX2 reader without the rest of its table.
#include <immintrin.h>

#include <cstring>

#include "vmo/dtype.h"
#include "vmo/kernel_table.h"

namespace {

using vmo::SparseCursor;
using vmo::SparseKernels;
using vmo::TileCoding;

}  // namespace

#include "avx2/sparse.h"
#include "kernels/sparse.inl"

const vmo::SparseKernels* avx2_reader() {
  static const SparseKernels kernels = sparse_kernels();
  return &kernels;
}
