// SPDX-License-Identifier: Apache-2.0
// Keeps exceptions inside the library: what C and MindSpore call must return a status.
#pragma once

#include <exception>
#include <new>

#include "vmo/error.h"

namespace vmo {

// body(), or kError after recording what it threw.
template <class Body>
Status guarded(const char* op, Body body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(op, "out of memory");
  } catch (const std::exception& error) {
    return fail(op, "failed: %s", error.what());
  }
}

}  // namespace vmo
