// SPDX-License-Identifier: Apache-2.0
// RmsNorm and AddRmsNorm (Zhang & Sennrich 2019, "Root Mean Square Layer Normalization").
#pragma once

namespace {

// Two accumulators shorten the dependency chain; every row uses the same order.
template <class T>
inline float sum_of_squares(const T* x, int64_t cols) {
  Vec sums[2] = {Vec::zero(), Vec::zero()};
  int which = 0;
  for (int64_t i = 0; i < cols; i += Vec::kLanes, which ^= 1) {
    const Vec v = load_some(x + i, cols - i);
    sums[which] = fma(v, v, sums[which]);
  }
  return reduce_add(sums[0] + sums[1]);
}

template <class T>
inline void add_rows(const T* x, const T* residual, int64_t cols, T* sum) {
  for (int64_t i = 0; i < cols; i += Vec::kLanes) {
    store_some(load_some(x + i, cols - i) + load_some(residual + i, cols - i), sum + i, cols - i);
  }
}

template <class T>
void norm(const NormArgs& args, int64_t row0, int64_t row1) {
  const T* gamma = at<T>(args.gamma, 0);
  for (int64_t row = row0; row < row1; ++row) {
    const T* x = at<T>(args.x, row * args.ldx);
    if (args.residual != nullptr) {
      T* sum = at<T>(args.sum, row * args.ldsum);
      add_rows(x, at<T>(args.residual, row * args.ldresidual), args.cols, sum);
      x = sum;  // the norm is that of the rounded sum
    }
    const float mean = sum_of_squares(x, args.cols) / static_cast<float>(args.cols);
    const float rstd = 1.0f / std::sqrt(mean + args.epsilon);
    if (args.rstd != nullptr) vmo::store_unaligned(args.rstd + row, rstd);
    T* y = at<T>(args.y, row * args.ldy);
    const Vec scale = Vec::set1(rstd);
    for (int64_t i = 0; i < args.cols; i += Vec::kLanes) {
      const Vec v = load_some(x + i, args.cols - i) * scale;
      store_some(v * load_some(gamma + i, args.cols - i), y + i, args.cols - i);
    }
  }
}

}  // namespace
