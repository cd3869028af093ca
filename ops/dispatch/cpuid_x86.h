// SPDX-License-Identifier: Apache-2.0
// What an x86-64 CPU offers and its operating system has enabled.
#pragma once

#include "vmo/isa.h"

namespace vmo {

// Highest level whose instructions may be executed (kAmx still needs request_amx()).
Isa detect_x86_level();
// Whether AVX-512 VBMI2 may be executed, and VNNI and VPOPCNTDQ, which every CPU that has it has.
bool detect_x86_vbmi2();

}  // namespace vmo
