// SPDX-License-Identifier: Apache-2.0
// A word of compressed weights, bit by bit.
#pragma once

namespace {

// 64 weights: the next of `values` where `mask` has a bit, else 0. `values` has 64 bytes, whatever the mask.
inline void expand_word(uint64_t mask, const char* values, int8_t* out) {
  for (int i = 0; i < 64; ++i, mask >>= 1) {
    const int set = static_cast<int>(mask & 1);
    out[i] = static_cast<int8_t>(*values * set);
    values += i < 63 ? set : 0;
  }
}

}  // namespace
