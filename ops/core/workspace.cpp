// SPDX-License-Identifier: Apache-2.0
// workspace.
#include "workspace.h"

#include "check.h"
#include "vmo/footprint.h"

namespace vmo {

Status workspace(const char* op, ScratchSlot slot, DType dtype, int64_t rows, int64_t cols, int64_t room,
                 TensorView* out) {
  const int64_t widest[2] = {rows, room}, shape[2] = {rows, cols};
  const TensorView whole = contiguous_view(nullptr, dtype, 2, widest);
  VMO_TRY(check_view(op, whole));
  void* data = scratch(slot, whole.bytes());
  if (footprint_recording()) record_footprint(data, whole.bytes());
  *out = contiguous_view(data, dtype, 2, shape);
  return kOk;
}

}  // namespace vmo
