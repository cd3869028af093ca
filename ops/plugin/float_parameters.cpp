// SPDX-License-Identifier: Apache-2.0
// float_parameters.
#include "float_parameters.h"

#include <cstring>

#include "core/check.h"
#include "vmo/core.h"

namespace vmo::plugin {

Status float_parameters(const char* op, const char* name, const TensorView& given, int64_t count, ScratchSlot slot,
                        TensorView* out) {
  *out = TensorView{};
  if (given.data == nullptr) return kOk;
  if (given.numel() != count && given.numel() != 1) {
    return fail(op, "argument %s has shape %s; expected %lld elements or one", name, shape_text(given),
                static_cast<long long>(count));
  }
  auto* values = static_cast<float*>(scratch(slot, static_cast<size_t>(count) * sizeof(float)));
  const int64_t stored = given.numel();
  const TensorView view = contiguous_view(values, DType::kFloat32, 1, &stored);
  if (given.dtype == DType::kInt64 || given.dtype == DType::kUInt64) {
    if (!given.is_contiguous()) return fail(op, "argument %s has a stride; expected adjacent elements", name);
    const auto* words = static_cast<const char*>(given.data);
    for (int64_t i = 0; i < stored; ++i) {
      const auto bits = static_cast<uint32_t>(load_unaligned<uint64_t>(words + i * 8));
      std::memcpy(values + i, &bits, sizeof(bits));
    }
  } else {
    VMO_TRY(cast(op, given, view));
  }
  for (int64_t i = stored; i < count; ++i) values[i] = values[0];
  *out = contiguous_view(values, DType::kFloat32, 1, &count);
  return kOk;
}

}  // namespace vmo::plugin
