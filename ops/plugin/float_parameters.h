// SPDX-License-Identifier: Apache-2.0
// Scales and offsets of builtin primitives, whatever type they come in.
#pragma once

#include "vmo/error.h"
#include "vmo/scratch.h"
#include "vmo/tensor_view.h"

namespace vmo::plugin {

// Parameters as float32 [count], from [count] or [1] of any dense type, or from integers that hold the bits of a float32
// in their lower half (scales of Ascend's float16 kernels); null data for None.
Status float_parameters(const char* op, const char* name, const TensorView& given, int64_t count, ScratchSlot slot,
                        TensorView* out);

}  // namespace vmo::plugin
