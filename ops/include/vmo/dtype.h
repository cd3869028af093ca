// SPDX-License-Identifier: Apache-2.0
// Element types known to the library, and the 16-bit storage types of kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vmo {

// The numeric values are part of the C API (vmo_tensor.dtype).
enum class DType : int32_t {
  kFloat32 = 0,
  kFloat16 = 1,
  kBFloat16 = 2,
  kFloat64 = 3,
  kBool = 4,
  kInt8 = 5,
  kUInt8 = 6,
  kInt16 = 7,
  kUInt16 = 8,
  kInt32 = 9,
  kUInt32 = 10,
  kInt64 = 11,
  kUInt64 = 12,
  kComplex64 = 13,
  kComplex128 = 14,
  kInvalid = 15,
};

// Number of dense-kernel element types: float32, float16, bfloat16 (the first three values).
constexpr int kDenseTypes = 3;

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// Bytes of one element; 0 for kInvalid.
size_t size_of(DType dtype);
// MindSpore's spelling ("bfloat16"); "invalid" for kInvalid.
const char* name_of(DType dtype);
// Inverse of name_of; kInvalid for an unknown or null name.
DType parse_dtype(const char* name);

inline bool is_dense(DType dtype) {
  return static_cast<int32_t>(dtype) >= 0 && static_cast<int32_t>(dtype) < kDenseTypes;
}
inline bool is_index(DType dtype) { return dtype == DType::kInt32 || dtype == DType::kInt64; }

// Loads and stores through memcpy: memory-mapped weights need not be aligned to their element size.
template <class T>
inline T load_unaligned(const void* address) {
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}
template <class T>
inline void store_unaligned(void* address, T value) {
  std::memcpy(address, &value, sizeof(T));
}

}  // namespace vmo
