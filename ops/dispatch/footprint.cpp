// SPDX-License-Identifier: Apache-2.0
// The union of recorded address ranges.
#include "vmo/footprint.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace vmo {
namespace {

using Range = std::pair<uintptr_t, uintptr_t>;  // begin, end

std::atomic<bool> g_recording{false};
std::mutex g_mutex;

// Leaked on purpose: kernels may still run while the process ends.
std::vector<Range>& ranges() {
  static auto* recorded = new std::vector<Range>;
  return *recorded;
}

}  // namespace

void start_footprint() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  ranges().clear();
  g_recording = true;
}

bool footprint_recording() { return g_recording.load(std::memory_order_relaxed); }

void record_footprint(const void* data, size_t bytes) {
  if (data == nullptr || bytes == 0) return;
  const std::lock_guard<std::mutex> lock(g_mutex);
  const auto begin = reinterpret_cast<uintptr_t>(data);
  ranges().emplace_back(begin, begin + bytes);
}

size_t stop_footprint() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  g_recording = false;
  std::sort(ranges().begin(), ranges().end());
  size_t total = 0;
  uintptr_t covered = 0;
  for (const Range& range : ranges()) {
    const uintptr_t begin = std::max(range.first, covered);
    if (range.second > begin) total += range.second - begin;
    covered = std::max(covered, range.second);
  }
  ranges().clear();
  return total;
}

}  // namespace vmo
