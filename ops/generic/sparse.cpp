// SPDX-License-Identifier: Apache-2.0
// Compressed weights on any CPU.
#include "dispatch/tables.h"

#include "generic/expand.h"

#include "kernels/sparse.inl"

namespace vmo {

const SparseKernels* generic_sparse() {
  static const SparseKernels kernels{expand_rows, skip_rows, nullptr, 0, nullptr};
  return &kernels;
}

}  // namespace vmo
