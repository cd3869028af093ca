// SPDX-License-Identifier: Apache-2.0
// Last-error store shared by all threads: MindSpore runs kernels on its own thread, Python reads on another.
#include "vmo/error.h"

#include <pthread.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>

namespace vmo {
namespace {

constexpr size_t kMaxMessage = 1024;

std::mutex g_mutex;
char g_message[kMaxMessage] = "";
char g_printed[kMaxMessage] = "";

void lock_store() { g_mutex.lock(); }
void unlock_store() { g_mutex.unlock(); }
// A child of fork must not inherit the lock held by a thread it does not have.
[[maybe_unused]] const int g_fork_handlers = pthread_atfork(lock_store, unlock_store, unlock_store);

}  // namespace

Status fail(const char* op, const char* format, ...) {
  char message[kMaxMessage];
  const int prefix = std::snprintf(message, sizeof(message), "%s: ", op);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message + prefix, sizeof(message) - static_cast<size_t>(prefix), format, arguments);
  va_end(arguments);
  const std::lock_guard<std::mutex> lock(g_mutex);
  std::memcpy(g_message, message, sizeof(message));
  if (std::strcmp(g_printed, message) != 0) {
    std::memcpy(g_printed, message, sizeof(message));
    std::fprintf(stderr, "vllm_mindspore ops: %s\n", message);
  }
  return kError;
}

const char* last_error() {
  static thread_local char copy[kMaxMessage];
  const std::lock_guard<std::mutex> lock(g_mutex);
  std::memcpy(copy, g_message, sizeof(copy));
  return copy;
}

void clear_error() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  g_message[0] = '\0';
  g_printed[0] = '\0';
}

}  // namespace vmo
