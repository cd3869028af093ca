// SPDX-License-Identifier: Apache-2.0
// Multiply-add throughput with everything in registers: the ceiling the benchmark compares kernels with.
#pragma once

namespace {

template <class T>
double peak(int64_t iterations) {
  using D = Dot<T>;
  constexpr int kChains = 12;  // enough independent sums to hide the latency of one multiply-add
  T ones[D::kStep];
  std::memset(ones, 0, sizeof(ones));
  __asm__ volatile("" : : "r"(ones) : "memory");  // hides the values from constant folding
  const typename D::Chunk a = D::load(ones);
  Vec sums[kChains];
  for (Vec& sum : sums) sum = Vec::zero();
  for (int64_t i = 0; i < iterations; ++i) {
    for (Vec& sum : sums) sum = D::mac(sum, a, a);
  }
  Vec total = Vec::zero();
  for (const Vec& sum : sums) total = total + sum;
  return 2.0 * static_cast<double>(D::kStep) * kChains * static_cast<double>(iterations) +
         static_cast<double>(reduce_add(total));
}

}  // namespace
