// SPDX-License-Identifier: Apache-2.0
// Fork-safe pool that runs the tasks of one kernel at a time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "vmo/error.h"

namespace vmo {

using TaskFunction = void (*)(void* context, int64_t task);

// Fails when VLLM_MS_NUM_THREADS is set to something that is not a thread count.
Status check_thread_setting(const char* op);

// Threads used by run_tasks, the calling one included.
int num_threads();
// n >= 1; joins the old workers. Must not be called from inside a task.
void set_num_threads(int n);

// Calls function(context, i) once for every i in [0, count) and returns when all calls have returned.
// Tasks are handed out in rising order by an atomic counter. A call made while another thread owns the pool,
// or from inside a task, runs its tasks inline on the calling thread. Rethrows the first exception of a task once all
// have ended; throws std::system_error when the system refuses a thread.
void run_tasks(int64_t count, TaskFunction function, void* context);

// run_tasks for a callable taking the task number.
template <class Body>
void parallel_for(int64_t count, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  run_tasks(
      count, [](void* context, int64_t task) { (*static_cast<Plain*>(context))(task); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace vmo
