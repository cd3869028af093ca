// SPDX-License-Identifier: Apache-2.0
// Memory that the outputs of a graph occupy, counted once however often it is reused.
#pragma once

#include <cstddef>

namespace vmo {

void start_footprint();
bool footprint_recording();
// Adds `bytes` at `data` to the recording.
void record_footprint(const void* data, size_t bytes);
// Ends the recording; bytes of the union of everything added.
size_t stop_footprint();

}  // namespace vmo
