// SPDX-License-Identifier: Apache-2.0
// SiLU and SwiGLU (Shazeer 2020, "GLU Variants Improve Transformer").
#pragma once

namespace {

template <class T>
void activation(const ActivationArgs& args, int64_t row0, int64_t row1) {
  for (int64_t row = row0; row < row1; ++row) {
    const T* gate = at<T>(args.gate, row * args.ldx);
    const T* up = args.up == nullptr ? nullptr : at<T>(args.up, row * args.ldx);
    T* y = at<T>(args.y, row * args.ldy);
    for (int64_t i = 0; i < args.cols; i += Vec::kLanes) {
      const int64_t n = args.cols - i;
      Vec v = silu(load_some(gate + i, n));
      if (up != nullptr) v = v * load_some(up + i, n);
      store_some(v, y + i, n);
    }
  }
}

}  // namespace
