// SPDX-License-Identifier: Apache-2.0
// Splits row-wise work into tasks of a useful size.
#pragma once

#include <algorithm>

#include "vmo/thread_pool.h"

namespace vmo {

// Elements one task should handle: some microseconds of work; less runs inline.
constexpr int64_t kRowTaskElements = 16 << 10;

// Calls body(row0, row1) for ranges that cover [0, rows), each row costing `cols` elements.
template <class Body>
void for_row_ranges(int64_t rows, int64_t cols, Body body) {
  const int64_t per_task = std::max<int64_t>(1, kRowTaskElements / std::max<int64_t>(cols, 1));
  const int64_t tasks = (rows + per_task - 1) / per_task;
  parallel_for(tasks, [&](int64_t task) { body(task * per_task, std::min((task + 1) * per_task, rows)); });
}

}  // namespace vmo
