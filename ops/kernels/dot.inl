// SPDX-License-Identifier: Apache-2.0
// Register-blocked dot products along K: c[m, n] = sum_k x[m, k] * w[n, k], accumulated in float32.
#pragma once

namespace {

constexpr int kSecondLevelCache = 2;  // locality argument of __builtin_prefetch
constexpr int kDotCols = 4;  // rows of w in flight per block; reduce_add4 finishes them together

// Final sums of a block: four rows at a time where the instruction set has that, with the same tree of additions.
template <int kRows>
inline void reduce_block(const Vec (&sums)[kRows][kDotCols], float (*out)[kDotCols]) {
  int m = 0;
  if constexpr (kHasReduceAdd16) {
    for (; m + 4 <= kRows; m += 4) reduce_add16(sums + m, out + m);
  }
  for (; m < kRows; ++m) reduce_add4(sums[m], out[m]);
}

// kRows x kDotCols outputs. What lies `prefetch` elements ahead of w goes to the second-level cache (0: nothing).
template <class T, int kRows>
inline void dot_block(const T* const* x, const T* const* w, int64_t inner, int64_t prefetch, float (*out)[kDotCols]) {
  using D = Dot<T>;
  Vec sums[kRows][kDotCols];
  for (auto& row : sums) {
    for (Vec& sum : row) sum = Vec::zero();
  }
  int64_t k = 0;
  for (; k + D::kStep <= inner; k += D::kStep) {
    typename D::Chunk a[kRows];
    for (int m = 0; m < kRows; ++m) a[m] = D::load(x[m] + k);
    for (int n = 0; n < kDotCols; ++n) {
      if (prefetch != 0) __builtin_prefetch(w[n] + k + prefetch, 0, kSecondLevelCache);
      const typename D::Chunk b = D::load(w[n] + k);
      for (int m = 0; m < kRows; ++m) sums[m][n] = D::mac(sums[m][n], a[m], b);
    }
  }
  if (k < inner) {
    const int rest = static_cast<int>(inner - k);
    typename D::Chunk a[kRows];
    for (int m = 0; m < kRows; ++m) a[m] = D::load_first(x[m] + k, rest);
    for (int n = 0; n < kDotCols; ++n) {
      const typename D::Chunk b = D::load_first(w[n] + k, rest);
      for (int m = 0; m < kRows; ++m) sums[m][n] = D::mac(sums[m][n], a[m], b);
    }
  }
  reduce_block(sums, out);
}

// Chooses the block for `rows` (1 .. Dot<T>::kMaxRows) rows of x.
template <class T, int kRows = Dot<T>::kMaxRows>
inline void dot_rows(int rows, const T* const* x, const T* const* w, int64_t inner, int64_t prefetch,
                     float (*out)[kDotCols]) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return dot_rows<T, kRows - 1>(rows, x, w, inner, prefetch, out);
  }
  dot_block<T, kRows>(x, w, inner, prefetch, out);
}

// c[m * ldc + n] for all m < rows, n < cols. x_rows and w_rows hold one pointer per row. The inner loop runs over
// rows of w: a block of rows of x stays in the first-level cache, and the first block fetches what lies `prefetch`
// elements ahead of w (0: nothing), which the others find in the second.
template <class T>
inline void dot_tile(const T* const* x_rows, int rows, const T* const* w_rows, int cols, int64_t inner,
                     int64_t prefetch, float* c, int64_t ldc) {
  constexpr int kStep = Dot<T>::kMaxRows;
  for (int m = 0; m < rows; m += kStep) {
    const int count = rows - m < kStep ? rows - m : kStep;
    for (int n = 0; n < cols; n += kDotCols) {
      // A partial block repeats its last row; the copies are dropped below.
      const T* w[kDotCols];
      for (int j = 0; j < kDotCols; ++j) w[j] = w_rows[n + j < cols ? n + j : cols - 1];
      const int kept = cols - n < kDotCols ? cols - n : kDotCols;
      float out[kStep][kDotCols];
      dot_rows<T>(count, x_rows + m, w, inner, m == 0 ? prefetch : 0, out);
      for (int i = 0; i < count; ++i) std::memcpy(c + (m + i) * ldc + n, out[i], static_cast<size_t>(kept) * sizeof(float));
    }
  }
}

}  // namespace
