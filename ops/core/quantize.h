// SPDX-License-Identifier: Apache-2.0
// Checked arguments of the quantization of rows, for operations that quantize what they compute.
#pragma once

#include "vmo/core.h"
#include "vmo/kernel_table.h"

namespace vmo {

// All but the rows themselves (x and ldx), of which only the shape of x tells.
Status quantize_args(const char* op, const TensorView& x, const ActivationCodes& how, const TensorView& codes,
                     const TensorView& token_scale, QuantizeArgs* out);

}  // namespace vmo
