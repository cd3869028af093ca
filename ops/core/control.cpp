// SPDX-License-Identifier: Apache-2.0
// Version, instruction set, threads, errors and counters for callers of the C API.
#include <atomic>
#include <stdexcept>

#include "guard.h"
#include "linear_run.h"
#include "vmo/api.h"
#include "vmo/error.h"
#include "vmo/footprint.h"
#include "vmo/isa.h"
#include "vmo/stats.h"
#include "vmo/thread_pool.h"

const char* vmo_version() { return VMO_VERSION; }

const char* vmo_isa_name() { return vmo::active_isa_name(); }

int vmo_isa_supported(const char* name) {
  vmo::Isa isa = vmo::Isa::kGeneric;
  return vmo::parse_isa(name, &isa) && vmo::isa_supported(isa) ? 1 : 0;
}

int vmo_set_isa(const char* name) { return vmo::set_isa(name); }

void vmo_set_vbmi2(int on) { vmo::set_vbmi2(on != 0); }

int vmo_num_threads() { return vmo::num_threads(); }

int vmo_set_num_threads(int n) {
  if (n < 1) return vmo::fail("vmo_set_num_threads", "got %d threads; expected at least 1", n);
  return vmo::guarded("vmo_set_num_threads", [n] {
    vmo::set_num_threads(n);
    return vmo::kOk;
  });
}

const char* vmo_last_error() { return vmo::last_error(); }
void vmo_clear_error() { vmo::clear_error(); }
void vmo_set_batch_invariant(int on) { vmo::set_batch_invariant(on != 0); }
void vmo_set_noop(int on) { vmo::set_noop(on != 0); }
void vmo_start_footprint() { vmo::start_footprint(); }
int64_t vmo_stop_footprint() { return static_cast<int64_t>(vmo::stop_footprint()); }
void vmo_enable_stats(int on) { vmo::enable_stats(on != 0); }
void vmo_reset_stats() { vmo::reset_stats(); }

int vmo_op_stats(const char* name, int64_t* calls, int64_t* nanoseconds) {
  if (name == nullptr || calls == nullptr || nanoseconds == nullptr) {
    return vmo::fail("vmo_op_stats", "an argument is a null pointer");
  }
  const vmo::OpStats* stats = vmo::find_stats(name);
  if (stats == nullptr) return vmo::fail("vmo_op_stats", "no operation is named \"%s\"", name);
  *calls = stats->calls;
  *nanoseconds = stats->nanoseconds;
  return vmo::kOk;
}

int vmo_test_pool(int64_t tasks, int64_t work, int64_t* sum) {
  if (sum == nullptr) return vmo::fail("vmo_test_pool", "sum is a null pointer");
  return vmo::guarded("vmo_test_pool", [=] {
    std::atomic<int64_t> total{0};
    vmo::parallel_for(tasks, [&](int64_t task) {
      if (work < 0) throw std::runtime_error("a task threw");
      for (int64_t i = 0; i < work; ++i) __asm__ volatile("" : : "r"(i));
      total.fetch_add(task + 1);
    });
    *sum = total;
    return vmo::kOk;
  });
}
