// SPDX-License-Identifier: Apache-2.0
// The pool: workers spin for some microseconds after a job, then sleep on a futex.
//
// A job is guarded by one word, the gate. A worker may touch the job's fields only between entering (an atomic
// increment that succeeds only while the gate is open) and leaving. The caller closes the gate when no task is left
// to hand out and waits until nobody is inside; only then may the fields change. A worker that wakes late finds the
// gate closed, or open for a later job: it can never see a finished one.
#include "vmo/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace vmo {
namespace {

using Word = std::atomic<uint32_t>;
using Clock = std::chrono::steady_clock;

constexpr auto kSpin = std::chrono::microseconds(20);
constexpr int kPausesPerClockRead = 16;
constexpr int kMaxThreads = 1024;
constexpr uint32_t kInside = 0xffff;    // gate: number of workers inside
constexpr uint32_t kOpen = 1u << 16;    // gate: workers may enter
constexpr uint32_t kWaiting = 1u << 17; // gate: the caller sleeps until nobody is inside

void futex_wait(Word& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake(Word& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Spins until `done()` or the spin time is over; returns whether it was done.
template <class Condition>
bool spin_until(Condition done) {
  const auto deadline = Clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (done()) return true;
      cpu_pause();
    }
  } while (Clock::now() < deadline);
  return false;
}

class Pool {
 public:
  explicit Pool(int threads) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work_loop(); });
    } catch (...) {  // the system gives no more threads: those that run must end before their pool does
      shut_down();
      throw;
    }
  }
  ~Pool() { shut_down(); }

  // `function` must not throw: the job would end with workers inside.
  void run(int64_t count, TaskFunction function, void* context) {
    function_ = function;
    context_ = context;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    gate_.store(kOpen, std::memory_order_release);
    announce(static_cast<int>(count - 1 < INT_MAX ? count - 1 : INT_MAX));
    run_available();
    close_gate();
  }

 private:
  void shut_down() {
    stop_ = true;
    announce(INT_MAX);
    for (std::thread& worker : workers_) worker.join();
  }

  void announce(int wanted) {
    epoch_.fetch_add(1);
    if (sleepers_.load() > 0) futex_wake(epoch_, wanted);
  }

  void run_available() {
    for (;;) {
      const int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
      if (task >= count_) return;
      function_(context_, task);
    }
  }

  bool enter() {
    uint32_t gate = gate_.load(std::memory_order_relaxed);
    while ((gate & kOpen) != 0) {
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }

  void leave() {
    const uint32_t before = gate_.fetch_sub(1, std::memory_order_release);
    if ((before & kInside) == 1 && (before & kWaiting) != 0) futex_wake(gate_, 1);
  }

  void close_gate() {
    gate_.fetch_and(~kOpen);
    const auto empty = [this] { return (gate_.load(std::memory_order_acquire) & kInside) == 0; };
    if (spin_until(empty)) return;
    gate_.fetch_or(kWaiting);
    for (uint32_t gate = gate_.load(std::memory_order_acquire); (gate & kInside) != 0;
         gate = gate_.load(std::memory_order_acquire)) {
      futex_wait(gate_, gate);
    }
  }

  void work_loop() {
    uint32_t seen = epoch_.load();
    for (;;) {
      if (enter()) {
        run_available();
        leave();
      }
      if (stop_) return;
      wait_for_change(&seen);
    }
  }

  void wait_for_change(uint32_t* seen) {
    const auto changed = [this, seen] { return epoch_.load() != *seen; };
    if (!spin_until(changed)) {
      sleepers_.fetch_add(1);
      while (!changed()) futex_wait(epoch_, *seen);
      sleepers_.fetch_sub(1);
    }
    *seen = epoch_.load();
  }

  alignas(64) Word epoch_{0};  // grows with every job and at the end
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  alignas(64) Word gate_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  TaskFunction function_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
  std::vector<std::thread> workers_;
};

constexpr const char* kEnvironmentName = "VLLM_MS_NUM_THREADS";

// The count VLLM_MS_NUM_THREADS asks for; 0 when it is unset, -1 when it is not a count.
int threads_from_environment() {
  const char* text = std::getenv(kEnvironmentName);
  if (text == nullptr || text[0] == '\0') return 0;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return *end == '\0' && value >= 1 && value <= kMaxThreads ? static_cast<int>(value) : -1;
}

int default_threads() {
  const int wanted = threads_from_environment();
  if (wanted > 0) return wanted;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0 && CPU_COUNT(&allowed) > 0) return CPU_COUNT(&allowed);
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : static_cast<int>(count);
}

// Pool, its lock and the wanted size live behind one pointer: a forked child drops all three, because the parent's
// threads do not exist in it and its lock may have been held.
struct State {
  std::mutex lock;
  Pool* pool = nullptr;
  std::atomic<int> threads = default_threads();  // read without the lock, which a running job holds
};

std::atomic<State*> g_state{nullptr};
thread_local bool t_inside_task = false;

void forget_after_fork() {
  const State* old = g_state.load();
  t_inside_task = false;
  if (old == nullptr) return;
  auto* fresh = new State;  // the old one is leaked: destroying it would join threads that do not exist
  fresh->threads = old->threads.load();
  g_state.store(fresh);
}

State& state() {
  State* current = g_state.load(std::memory_order_acquire);
  if (current != nullptr) return *current;
  auto* created = new State;
  if (!g_state.compare_exchange_strong(current, created)) {
    delete created;
    return *current;
  }
  pthread_atfork(nullptr, nullptr, forget_after_fork);
  return *created;
}

void run_inline(int64_t count, TaskFunction function, void* context) {
  for (int64_t task = 0; task < count; ++task) function(context, task);
}

// One run_tasks call. The first exception of a task waits here until every worker has left the job.
struct Job {
  TaskFunction function;
  void* context;
  std::atomic<bool> failed{false};
  std::exception_ptr error = nullptr;
};

void run_guarded(void* opaque, int64_t task) {
  Job& job = *static_cast<Job*>(opaque);
  t_inside_task = true;
  try {
    job.function(job.context, task);
  } catch (...) {
    if (!job.failed.exchange(true)) job.error = std::current_exception();
  }
  t_inside_task = false;
}

}  // namespace

Status check_thread_setting(const char* op) {
  if (threads_from_environment() >= 0) return kOk;
  return fail(op, "%s is \"%s\"; expected a number from 1 to %d", kEnvironmentName, std::getenv(kEnvironmentName),
              kMaxThreads);
}

int num_threads() { return state().threads; }

void set_num_threads(int n) {
  State& current = state();
  const std::lock_guard<std::mutex> lock(current.lock);
  current.threads = n < 1 ? 1 : (n > kMaxThreads ? kMaxThreads : n);
  delete current.pool;
  current.pool = nullptr;
}

void run_tasks(int64_t count, TaskFunction function, void* context) {
  if (count <= 1 || t_inside_task) return run_inline(count, function, context);
  State& current = state();
  const std::unique_lock<std::mutex> lock(current.lock, std::try_to_lock);
  if (!lock.owns_lock() || current.threads == 1) return run_inline(count, function, context);
  if (current.pool == nullptr) current.pool = new Pool(current.threads);
  Job job{function, context};
  current.pool->run(count, run_guarded, &job);
  if (job.error != nullptr) std::rethrow_exception(job.error);
}

}  // namespace vmo
