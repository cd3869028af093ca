// SPDX-License-Identifier: Apache-2.0
// The general two-dimensional matrix product: the fast path is x . w^T, other cases are brought to it or looped.
#include <cstdint>

#include "check.h"
#include "vmo/core.h"
#include "vmo/thread_pool.h"

namespace vmo {
namespace {

TensorView transposed(const TensorView& view) {
  TensorView result = view;
  result.shape[0] = view.shape[1];
  result.shape[1] = view.shape[0];
  result.strides[0] = view.strides[1];
  result.strides[1] = view.strides[0];
  return result;
}

// Gap-free copy in scratch memory.
TensorView materialised(const TensorView& view, ScratchSlot slot) {
  TensorView result = contiguous_view(scratch(slot, view.bytes()), view.dtype, view.ndim, view.shape);
  copy_contiguous(view, result.data);
  return result;
}

// Wrapping arithmetic in the unsigned counterpart keeps integer overflow defined.
template <class T, class Accumulator>
void multiply(const TensorView& a, const TensorView& b, const TensorView& y) {
  const int64_t cols = b.shape[0], inner = a.shape[1];
  parallel_for(a.shape[0], [&](int64_t m) {
    for (int64_t n = 0; n < cols; ++n) {
      const T* x = static_cast<const T*>(a.data) + m * inner;
      const T* w = static_cast<const T*>(b.data) + n * inner;
      Accumulator sum = 0;
      for (int64_t k = 0; k < inner; ++k) {
        const auto left = static_cast<Accumulator>(load_unaligned<T>(x + k));
        sum += left * static_cast<Accumulator>(load_unaligned<T>(w + k));
      }
      store_unaligned(static_cast<T*>(y.data) + m * cols + n, static_cast<T>(sum));
    }
  });
}

Status multiply_other(const char* op, const TensorView& a, const TensorView& b, const TensorView& y) {
  switch (a.dtype) {
    case DType::kFloat64: multiply<double, double>(a, b, y); return kOk;
    case DType::kInt8: multiply<int8_t, uint64_t>(a, b, y); return kOk;
    case DType::kUInt8: multiply<uint8_t, uint64_t>(a, b, y); return kOk;
    case DType::kInt16: multiply<int16_t, uint64_t>(a, b, y); return kOk;
    case DType::kUInt16: multiply<uint16_t, uint64_t>(a, b, y); return kOk;
    case DType::kInt32: multiply<int32_t, uint64_t>(a, b, y); return kOk;
    case DType::kUInt32: multiply<uint32_t, uint64_t>(a, b, y); return kOk;
    case DType::kInt64: multiply<int64_t, uint64_t>(a, b, y); return kOk;
    case DType::kUInt64: multiply<uint64_t, uint64_t>(a, b, y); return kOk;
    default: return fail(op, "argument a has dtype %s; expected a real number type", name_of(a.dtype));
  }
}

}  // namespace

Status matmul(const char* op, const TensorView& a, const TensorView& b, bool transpose_a, bool transpose_b,
              const TensorView& y) {
  VMO_TRY(require_rank(op, "a", a, 2));
  VMO_TRY(require_rank(op, "b", b, 2));
  const TensorView left = transpose_a ? transposed(a) : a;
  TensorView right = transpose_b ? b : transposed(b);
  if (left.shape[1] != right.shape[1]) {
    return fail(op, "the inner extents of a %s and b %s differ: %lld and %lld", shape_text(a), shape_text(b),
                static_cast<long long>(left.shape[1]), static_cast<long long>(right.shape[1]));
  }
  Rows rows;
  if (!as_rows(right, right.shape[1], &rows)) right = materialised(right, ScratchSlot::kMaterialise1);
  if (is_dense(a.dtype)) return linear(op, left, 1, &right, nullptr, y);
  VMO_TRY(require_dtype(op, "b", b, a.dtype));
  VMO_TRY(require_dtype(op, "y", y, a.dtype));
  VMO_TRY(require_output(op, "y", y, left.shape[0] * right.shape[0]));
  const TensorView dense_left = materialised(left, ScratchSlot::kMaterialise0);
  return multiply_other(op, dense_left, materialised(right, ScratchSlot::kMaterialise2), y);
}

}  // namespace vmo
