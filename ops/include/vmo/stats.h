// SPDX-License-Identifier: Apache-2.0
// Call and time counters per operation, and the switch that turns plugin kernels into no-ops.
#pragma once

#include <atomic>
#include <cstdint>

namespace vmo {

struct OpStats {
  const char* name;
  std::atomic<int64_t> calls{0};
  std::atomic<int64_t> nanoseconds{0};
  OpStats* next = nullptr;
  explicit OpStats(const char* op_name);
};

// Counters of the operation, or null.
OpStats* find_stats(const char* name);
void reset_stats();
bool stats_enabled();
void enable_stats(bool on);
// When set, plugin kernels return success at once: what remains is the framework's own cost.
bool noop();
void set_noop(bool on);

// Adds the life time of the object to `stats`; costs one load when counting is off.
class OpTimer {
 public:
  explicit OpTimer(OpStats& stats);
  ~OpTimer();
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  OpStats* stats_;
  int64_t start_ = 0;
};

}  // namespace vmo
