// SPDX-License-Identifier: Apache-2.0
// What the machine can do: read bandwidth and multiply-add peak of all pool threads.
#include <chrono>
#include <memory>
#include <vector>

#include "core/guard.h"
#include "vmo/api.h"
#include "vmo/isa.h"
#include "vmo/thread_pool.h"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr int64_t kWordsPerTask = 1 << 15;  // 256 KiB of 64-bit words

uint64_t sum_words(const uint64_t* words, int64_t count) {
  uint64_t sums[8] = {};
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    // As the kernels do: into the second-level cache, 8 KiB ahead.
    __builtin_prefetch(words + i + 1024, 0, 2);
    for (int j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

double read_bandwidth(int64_t bytes) {
  const int64_t tasks = bytes / (kWordsPerTask * 8);
  const std::unique_ptr<uint64_t[]> words(new uint64_t[static_cast<size_t>(tasks * kWordsPerTask)]);
  std::vector<uint64_t> results(static_cast<size_t>(tasks));
  vmo::parallel_for(tasks, [&](int64_t task) {
    uint64_t* part = words.get() + task * kWordsPerTask;
    for (int64_t i = 0; i < kWordsPerTask; ++i) part[i] = static_cast<uint64_t>(i);
  });
  const auto start = Clock::now();
  vmo::parallel_for(tasks, [&](int64_t task) {
    results[static_cast<size_t>(task)] = sum_words(words.get() + task * kWordsPerTask, kWordsPerTask);
  });
  const double seconds = seconds_since(start);
  __asm__ volatile("" : : "r"(results.data()) : "memory");
  return static_cast<double>(tasks * kWordsPerTask * 8) / seconds;
}

double peak(const vmo::KernelTable& table, int dtype) {
  constexpr int64_t kIterations = 200000;
  const int threads = vmo::num_threads();
  std::vector<double> operations(static_cast<size_t>(threads));
  const auto start = Clock::now();
  vmo::parallel_for(threads, [&](int64_t i) { operations[static_cast<size_t>(i)] = table.by_dtype[dtype].peak(kIterations); });
  const double seconds = seconds_since(start);
  double total = 0;
  for (const double count : operations) total += count;
  return total / seconds;
}

}  // namespace

double vmo_measure_read_bandwidth(int64_t bytes) {
  constexpr const char* kName = "vmo_measure_read_bandwidth";
  constexpr int64_t kLeast = kWordsPerTask * 8;
  double result = 0;
  vmo::guarded(kName, [&] {
    if (bytes < kLeast) {
      return vmo::fail(kName, "got %lld bytes; expected at least %lld", static_cast<long long>(bytes),
                       static_cast<long long>(kLeast));
    }
    result = read_bandwidth(bytes);
    return vmo::kOk;
  });
  return result;
}

double vmo_measure_peak(int dtype) {
  constexpr const char* kName = "vmo_measure_peak";
  double result = 0;
  vmo::guarded(kName, [&] {
    const vmo::KernelTable* table = vmo::active_kernels(kName);
    if (table == nullptr) return vmo::kError;
    if (dtype < 0 || dtype >= vmo::kDenseTypes) return vmo::fail(kName, "got dtype %d; expected 0, 1 or 2", dtype);
    result = peak(*table, dtype);
    return vmo::kOk;
  });
  return result;
}
