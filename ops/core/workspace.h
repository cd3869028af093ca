// SPDX-License-Identifier: Apache-2.0
// Whole activations in the calling thread's work memory.
#pragma once

#include "vmo/error.h"
#include "vmo/scratch.h"
#include "vmo/tensor_view.h"

namespace vmo {

// [rows, cols] in the slot, which gets room for `room` columns; part of a footprint that is being recorded.
Status workspace(const char* op, ScratchSlot slot, DType dtype, int64_t rows, int64_t cols, int64_t room,
                 TensorView* out);

}  // namespace vmo
