// SPDX-License-Identifier: Apache-2.0
// Float32 terms added to a row of any dense type.
#pragma once

namespace {

template <class T>
void accumulate(const float* terms, int64_t count, char* row) {
  T* y = at<T>(row, 0);
  for (int64_t i = 0; i < count; i += Vec::kLanes) {
    store_some(load_some(y + i, count - i) + load_some(terms + i, count - i), y + i, count - i);
  }
}

}  // namespace
