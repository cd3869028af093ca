// SPDX-License-Identifier: Apache-2.0
// Argument checks.
#include "check.h"

#include <algorithm>
#include <cstdio>

namespace vmo {
namespace {

constexpr int kTexts = 4;
constexpr size_t kTextSize = 160;

template <class Extents>
const char* join(const Extents& extents, int count) {
  static thread_local char texts[kTexts][kTextSize];
  static thread_local int turn = 0;
  char* text = texts[turn++ % kTexts];
  size_t used = static_cast<size_t>(std::snprintf(text, kTextSize, "["));
  for (int i = 0; i < count && used < kTextSize - 24; ++i) {
    const long long extent = extents[i];
    used += extent == kAny ? static_cast<size_t>(std::snprintf(text + used, kTextSize - used, "%s*", i ? ", " : ""))
                           : static_cast<size_t>(
                                 std::snprintf(text + used, kTextSize - used, "%s%lld", i ? ", " : "", extent));
  }
  std::snprintf(text + used, kTextSize - used, "]");
  return text;
}

}  // namespace

const char* shape_text(const TensorView& view) { return join(view.shape, view.ndim); }
const char* shape_text(std::initializer_list<int64_t> shape) {
  return join(shape.begin(), static_cast<int>(shape.size()));
}

Status check_view(const char* op, const TensorView& view) {
  if (view.ndim < 0 || view.ndim > kMaxRank) {
    return fail(op, "a tensor has %d dimensions; expected 0 to %d", view.ndim, kMaxRank);
  }
  // All products of extents must fit, those of an empty tensor too.
  auto bytes = std::max<int64_t>(static_cast<int64_t>(size_of(view.dtype)), 1);
  for (int axis = 0; axis < view.ndim; ++axis) {
    const int64_t extent = view.shape[axis];
    if (extent < 0) {
      return fail(op, "axis %d of a tensor has the extent %lld; expected at least 0", axis,
                  static_cast<long long>(extent));
    }
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(extent, 1), &bytes)) {
      return fail(op, "the size of a tensor of shape %s exceeds 64 bits", shape_text(view));
    }
  }
  return kOk;
}

Status dense_kernels(const char* op, const char* name, DType dtype, const ElementKernels** kernels) {
  const KernelTable* table = active_kernels(op);
  if (table == nullptr) return kError;
  if (!is_dense(dtype)) {
    return fail(op, "argument %s has dtype %s; expected float32, float16 or bfloat16", name, name_of(dtype));
  }
  *kernels = &table->by_dtype[static_cast<int32_t>(dtype)];
  return kOk;
}

Status require_dtype(const char* op, const char* name, const TensorView& view, DType expected) {
  if (view.dtype == expected) return kOk;
  return fail(op, "argument %s has dtype %s; expected %s", name, name_of(view.dtype), name_of(expected));
}

Status require_shape(const char* op, const char* name, const TensorView& view,
                     std::initializer_list<int64_t> expected) {
  bool same = view.ndim == static_cast<int>(expected.size());
  int axis = 0;
  for (const int64_t extent : expected) {
    if (!same) break;
    same = extent == kAny || view.shape[axis] == extent;
    ++axis;
  }
  if (!same) {
    return fail(op, "argument %s has shape %s; expected %s", name, shape_text(view), shape_text(expected));
  }
  if (view.data == nullptr && view.numel() > 0) return fail(op, "argument %s is a null pointer", name);
  return kOk;
}

Status require_rank(const char* op, const char* name, const TensorView& view, int rank) {
  if (view.ndim != rank) {
    return fail(op, "argument %s has shape %s; expected %d dimensions", name, shape_text(view), rank);
  }
  if (view.data == nullptr && view.numel() > 0) return fail(op, "argument %s is a null pointer", name);
  return kOk;
}

Status require_vector(const char* op, const char* name, const TensorView& view, DType expected, int64_t extent) {
  VMO_TRY(require_dtype(op, name, view, expected));
  VMO_TRY(require_shape(op, name, view, {extent}));
  return view.is_contiguous() ? kOk : fail(op, "argument %s has a stride; expected adjacent elements", name);
}

Status require_output(const char* op, const char* name, const TensorView& view, int64_t numel) {
  if (view.numel() != numel) {
    return fail(op, "output %s has shape %s; expected %lld elements", name, shape_text(view),
                static_cast<long long>(numel));
  }
  if (!view.is_contiguous()) return fail(op, "output %s of shape %s has gaps; expected none", name, shape_text(view));
  if (view.data == nullptr && numel > 0) return fail(op, "output %s is a null pointer", name);
  return kOk;
}

Status require_index_type(const char* op, const char* name, const TensorView& view) {
  if (!is_index(view.dtype)) {
    return fail(op, "argument %s has dtype %s; expected int32 or int64", name, name_of(view.dtype));
  }
  if (view.data == nullptr && view.numel() > 0) return fail(op, "argument %s is a null pointer", name);
  return kOk;
}

Status require_axis(const char* op, const TensorView& view, int64_t axis, int* out) {
  if (axis < -view.ndim || axis >= view.ndim) {
    return fail(op, "axis %lld is out of range for shape %s", static_cast<long long>(axis), shape_text(view));
  }
  *out = static_cast<int>(axis < 0 ? axis + view.ndim : axis);
  return kOk;
}

Status row_extents(const char* op, const char* name, const TensorView& x, int64_t* rows, int64_t* inner) {
  if (x.ndim < 1) return fail(op, "argument %s is a scalar; expected at least one dimension", name);
  *inner = x.dim(-1);
  *rows = 1;
  for (int i = 0; i + 1 < x.ndim; ++i) *rows *= x.shape[i];
  return kOk;
}

Status weight_rows(const char* op, const char* name, const TensorView& w, DType dtype, int64_t inner, Rows* out) {
  VMO_TRY(require_dtype(op, name, w, dtype));
  VMO_TRY(require_shape(op, name, w, {kAny, inner}));
  if (as_rows(w, inner, out)) return kOk;
  return fail(op, "argument %s of shape %s must have adjacent elements in each row", name, shape_text(w));
}

Status input_rows(const char* op, const char* name, const TensorView& view, int64_t cols, ScratchSlot slot, Rows* out) {
  const int64_t count = view.numel();
  if (count > 0 && view.data == nullptr) return fail(op, "argument %s is a null pointer", name);
  if (cols < 0 || (cols == 0 && count != 0) || (cols > 0 && count % cols != 0)) {
    return fail(op, "argument %s of shape %s cannot be read as rows of %lld elements", name, shape_text(view),
                static_cast<long long>(cols));
  }
  if (as_rows(view, cols, out)) return kOk;
  void* memory = scratch(slot, view.bytes());
  copy_contiguous(view, memory);
  *out = Rows{static_cast<const char*>(memory), count / cols, cols, cols};
  return kOk;
}

int64_t index_at(const TensorView& view, int64_t i) {
  const int64_t offset = view.ndim == 0 ? 0 : i * view.strides[view.ndim - 1];
  if (view.dtype == DType::kInt64) return load_unaligned<int64_t>(static_cast<const int64_t*>(view.data) + offset);
  return load_unaligned<int32_t>(static_cast<const int32_t*>(view.data) + offset);
}

}  // namespace vmo
