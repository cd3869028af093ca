// SPDX-License-Identifier: Apache-2.0
// Names and sizes of the element types.
#include "vmo/dtype.h"

namespace vmo {
namespace {

struct Entry {
  const char* name;
  size_t bytes;
};

// Indexed by DType.
constexpr Entry kEntries[] = {
    {"float32", 4}, {"float16", 2}, {"bfloat16", 2}, {"float64", 8},   {"bool", 1},       {"int8", 1},
    {"uint8", 1},   {"int16", 2},   {"uint16", 2},   {"int32", 4},     {"uint32", 4},     {"int64", 8},
    {"uint64", 8},  {"complex64", 8}, {"complex128", 16}, {"invalid", 0},
};
constexpr int kEntryCount = static_cast<int>(sizeof(kEntries) / sizeof(kEntries[0]));
static_assert(kEntryCount == static_cast<int>(DType::kInvalid) + 1, "one entry per DType");

const Entry& entry(DType dtype) {
  const auto index = static_cast<int32_t>(dtype);
  return kEntries[index < 0 || index >= kEntryCount ? kEntryCount - 1 : index];
}

}  // namespace

size_t size_of(DType dtype) { return entry(dtype).bytes; }

const char* name_of(DType dtype) { return entry(dtype).name; }

DType parse_dtype(const char* name) {
  if (name == nullptr) return DType::kInvalid;
  for (int i = 0; i < kEntryCount; ++i) {
    if (std::strcmp(kEntries[i].name, name) == 0) return static_cast<DType>(i);
  }
  return DType::kInvalid;
}

}  // namespace vmo
