// SPDX-License-Identifier: Apache-2.0
// The AVX-512 vector; rounding to bfloat16 uses the native instruction here.
#pragma once

#include "avx512/vec.h"
