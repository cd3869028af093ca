// SPDX-License-Identifier: Apache-2.0
// Register-blocked dot products along K: c[m, n] = sum_k x[m, k] * w[n, k], accumulated in float32, of int8 in int32.
#pragma once

namespace {

constexpr int kSecondLevelCache = 2;  // locality argument of __builtin_prefetch
constexpr int kDotCols = 4;  // rows of w in flight per block; reduce_add4 finishes them together

// Final sums of a block: four rows at a time where the instruction set has that, with the same tree of additions.
template <int kRows, class Sum, class Out>
inline void reduce_block(const Sum (&sums)[kRows][kDotCols], Out (*out)[kDotCols]) {
  int m = 0;
  if constexpr (kHasReduceAdd16) {
    for (; m + 4 <= kRows; m += 4) reduce_add16(sums + m, out + m);
  }
  for (; m < kRows; ++m) reduce_add4(sums[m], out[m]);
}

// The sums of a block so far.
template <class D, int kRows>
struct BlockSums {
  typename D::Sum products[kRows][kDotCols];
  typename D::Sum shifts[kDotCols];  // those of the constant that left operands are shifted by

  BlockSums() {
    for (auto& row : products) {
      for (auto& sum : row) sum = D::zero();
    }
    for (auto& sum : shifts) sum = D::zero();
  }

  void add(int n, const typename D::Chunk (&left)[kRows], typename D::Chunk right) {
    for (int m = 0; m < kRows; ++m) products[m][n] = D::mac(products[m][n], left[m], right);
    if constexpr (D::kShifted) shifts[n] = D::mac(shifts[n], D::shift(), right);
  }

  void finish(typename D::Out (*out)[kDotCols]) {
    if constexpr (D::kShifted) {
      for (auto& row : products) {
        for (int n = 0; n < kDotCols; ++n) row[n] = row[n] - shifts[n];
      }
    }
    reduce_block(products, out);
  }
};

// How elements of type X are multiplied with those of type W: floats with int8 codes as floats.
template <class X, class W>
struct Products : Dot<X> {
  static_assert(std::is_same_v<X, W>);
};
template <>
struct Products<float, int8_t> : Dot<float> {
  using Dot<float>::load;
  using Dot<float>::load_first;
  static Vec load(const int8_t* p) { return Vec::load(p); }
  static Vec load_first(const int8_t* p, int n) { return Vec::load_first(p, n); }
};

// kRows x kDotCols outputs. What lies `prefetch` elements ahead of w goes to the second-level cache (0: nothing).
template <class X, class W, int kRows>
inline void dot_block(const X* const* x, const W* const* w, int64_t inner, int64_t prefetch,
                      typename Dot<X>::Out (*out)[kDotCols]) {
  using D = Products<X, W>;
  BlockSums<D, kRows> sums;
  int64_t k = 0;
  for (; k + D::kStep <= inner; k += D::kStep) {
    typename D::Chunk left[kRows];
    for (int m = 0; m < kRows; ++m) left[m] = load_left<D>(x[m] + k);
    for (int n = 0; n < kDotCols; ++n) {
      if (prefetch != 0) __builtin_prefetch(w[n] + k + prefetch, 0, kSecondLevelCache);
      sums.add(n, left, D::load(w[n] + k));
    }
  }
  if (k < inner) {
    const int rest = static_cast<int>(inner - k);
    typename D::Chunk left[kRows];
    for (int m = 0; m < kRows; ++m) left[m] = load_left_first<D>(x[m] + k, rest);
    for (int n = 0; n < kDotCols; ++n) sums.add(n, left, D::load_first(w[n] + k, rest));
  }
  sums.finish(out);
}

// Chooses the block for `rows` (1 .. Dot<X>::kMaxRows) rows of x.
template <class X, class W, int kRows = Dot<X>::kMaxRows>
inline void dot_rows(int rows, const X* const* x, const W* const* w, int64_t inner, int64_t prefetch,
                     typename Dot<X>::Out (*out)[kDotCols]) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return dot_rows<X, W, kRows - 1>(rows, x, w, inner, prefetch, out);
  }
  dot_block<X, W, kRows>(x, w, inner, prefetch, out);
}

// c[m * ldc + n] for all m < rows, n < cols. x_rows and w_rows hold one pointer per row. The inner loop runs over
// rows of w: a block of rows of x stays in the first-level cache, and the first block fetches what lies `prefetch`
// elements ahead of w (0: nothing), which the others find in the second.
template <class X, class W>
inline void dot_tile(const X* const* x_rows, int rows, const W* const* w_rows, int cols, int64_t inner,
                     int64_t prefetch, typename Dot<X>::Out* c, int64_t ldc) {
  constexpr int kStep = Dot<X>::kMaxRows;
  for (int m = 0; m < rows; m += kStep) {
    const int count = rows - m < kStep ? rows - m : kStep;
    for (int n = 0; n < cols; n += kDotCols) {
      // A partial block repeats its last row; the copies are dropped below.
      const W* w[kDotCols];
      for (int j = 0; j < kDotCols; ++j) w[j] = w_rows[n + j < cols ? n + j : cols - 1];
      const int kept = cols - n < kDotCols ? cols - n : kDotCols;
      typename Dot<X>::Out out[kStep][kDotCols];
      dot_rows(count, x_rows + m, w, inner, m == 0 ? prefetch : 0, out);
      const size_t bytes = static_cast<size_t>(kept) * sizeof(out[0][0]);
      for (int i = 0; i < count; ++i) std::memcpy(c + (m + i) * ldc + n, out[i], bytes);
    }
  }
}

}  // namespace
