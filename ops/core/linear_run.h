// SPDX-License-Identifier: Apache-2.0
// Threaded execution of matrix products whose arguments have been checked.
#pragma once

#include "vmo/kernel_table.h"

namespace vmo {

void run_linear(const ElementKernels& kernels, size_t element, LinearArgs args);
void run_gate_up(const ElementKernels& kernels, size_t element, GateUpArgs args);

}  // namespace vmo
