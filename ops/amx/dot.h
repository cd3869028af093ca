// SPDX-License-Identifier: Apache-2.0
// Products too small for tiles, and attention scores, use the AVX-512 bfloat16 register block.
#pragma once

#include "avx512_bf16/dot.h"
