// SPDX-License-Identifier: Apache-2.0
// The sum of several rows of any dense type, in their order, rounded once.
#pragma once

namespace {

template <class T>
void sum(const char* const* parts, int count, int64_t length, char* out) {
  T* y = at<T>(out, 0);
  for (int64_t i = 0; i < length; i += Vec::kLanes) {
    const int64_t n = length - i;
    Vec total = load_some(at<T>(parts[0], i), n);
    for (int part = 1; part < count; ++part) total = total + load_some(at<T>(parts[part], i), n);
    store_some(total, y + i, n);
  }
}

}  // namespace
