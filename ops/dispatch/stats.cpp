// SPDX-License-Identifier: Apache-2.0
// Registry of per-operation counters.
#include "vmo/stats.h"

#include <chrono>
#include <cstring>

namespace vmo {
namespace {

// Plain pointers, constant initialised: OpStats objects of other translation units register during start-up.
OpStats* g_first = nullptr;
std::atomic<bool> g_enabled{false};
std::atomic<bool> g_noop{false};

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

OpStats::OpStats(const char* op_name) : name(op_name), next(g_first) { g_first = this; }

OpStats* find_stats(const char* name) {
  for (OpStats* stats = g_first; stats != nullptr; stats = stats->next) {
    if (std::strcmp(stats->name, name) == 0) return stats;
  }
  return nullptr;
}

void reset_stats() {
  for (OpStats* stats = g_first; stats != nullptr; stats = stats->next) {
    stats->calls = 0;
    stats->nanoseconds = 0;
  }
}

bool stats_enabled() { return g_enabled.load(std::memory_order_relaxed); }
void enable_stats(bool on) { g_enabled = on; }
bool noop() { return g_noop.load(std::memory_order_relaxed); }
void set_noop(bool on) { g_noop = on; }

OpTimer::OpTimer(OpStats& stats) : stats_(stats_enabled() ? &stats : nullptr) {
  if (stats_ != nullptr) start_ = now_ns();
}

OpTimer::~OpTimer() {
  if (stats_ == nullptr) return;
  stats_->nanoseconds.fetch_add(now_ns() - start_, std::memory_order_relaxed);
  stats_->calls.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace vmo
