// SPDX-License-Identifier: Apache-2.0
// The portable reader, and those that the CPU has of the others.
#include "readers.h"

#include "dispatch/tables.h"

#if defined(__x86_64__)
#include "dispatch/cpuid_x86.h"
#endif

const std::vector<const vmo::SparseKernels*>& readers() {
  static const auto found = [] {
    std::vector<const vmo::SparseKernels*> list{vmo::generic_sparse()};
#if defined(__x86_64__)
    if (vmo::detect_x86_level() >= vmo::Isa::kAvx2) list.push_back(vmo::avx2_sparse());
    if (vmo::detect_x86_vbmi2()) list.insert(list.end(), {vmo::avx512_vbmi2_sparse(), vmo::amx_sparse()});
#endif
    return list;
  }();
  return found;
}
