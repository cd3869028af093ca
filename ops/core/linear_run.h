// SPDX-License-Identifier: Apache-2.0
// Threaded execution of matrix products whose arguments have been checked.
#pragma once

#include <functional>

#include "vmo/kernel_table.h"

namespace vmo {

// Whether a row's bits must not depend on how many rows there are: rows are then never packed.
void set_batch_invariant(bool on);
bool batch_invariant();

void run_linear(const ElementKernels& kernels, size_t element, const LinearArgs& args);
void run_int8_linear(const ElementKernels& kernels, const Packing& packing, size_t element, const Int8LinearArgs& args);
// The same of compressed weights.
void run_sparse_linear(const ElementKernels& kernels, const KernelTable& table, size_t element, const Int8LinearArgs& args);
// Calls run(group) for groups of rows: packed together where the packing says so.
void for_int8_groups(const Packing& packing, size_t element, const Int8LinearArgs& args,
                     const std::function<void(const Int8LinearArgs&)>& run);
void run_weight_only(const ElementKernels& kernels, size_t element, bool int4, const WeightOnlyArgs& args);
void run_gate_up(const ElementKernels& kernels, size_t element, const GateUpArgs& args);

}  // namespace vmo
