// SPDX-License-Identifier: Apache-2.0
// Every way of this CPU to read compressed weights.
#pragma once

#include <vector>

#include "vmo/kernel_table.h"

const std::vector<const vmo::SparseKernels*>& readers();
