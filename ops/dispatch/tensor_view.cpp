// SPDX-License-Identifier: Apache-2.0
// Stride arithmetic on tensor views.
#include "vmo/tensor_view.h"

namespace vmo {
namespace {

// Copies the sub-tensor at `source` (dimensions axis..ndim-1) to `out`; returns the end of what was written.
char* copy_axis(const TensorView& view, int axis, const char* source, size_t element, char* out) {
  if (axis == view.ndim) {
    std::memcpy(out, source, element);
    return out + element;
  }
  const int64_t extent = view.shape[axis];
  const int64_t stride = view.strides[axis];
  if (axis == view.ndim - 1 && (stride == 1 || extent == 1)) {
    const size_t bytes = static_cast<size_t>(extent) * element;
    std::memcpy(out, source, bytes);
    return out + bytes;
  }
  for (int64_t i = 0; i < extent; ++i) {
    out = copy_axis(view, axis + 1, source + i * stride * static_cast<int64_t>(element), element, out);
  }
  return out;
}

}  // namespace

int64_t TensorView::numel() const {
  int64_t count = 1;
  for (int i = 0; i < ndim; ++i) count *= shape[i];
  return count;
}

bool TensorView::is_contiguous() const {
  int64_t expected = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[i] != expected) return numel() == 0;
    expected *= shape[i];
  }
  return true;
}

TensorView contiguous_view(void* data, DType dtype, int ndim, const int64_t* shape) {
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.ndim = ndim;
  int64_t stride = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    view.shape[i] = shape[i];
    view.strides[i] = stride;
    stride *= shape[i];
  }
  return view;
}

bool as_rows(const TensorView& view, int64_t cols, Rows* out) {
  out->data = static_cast<const char*>(view.data);
  out->cols = cols;
  const int64_t count = view.numel();
  out->rows = cols > 0 ? count / cols : 0;
  out->stride = cols;
  if (count == 0) return true;
  if (cols <= 0 || count % cols != 0) return false;
  // Trailing dimensions that make up one row must be gap-free; the leading ones must share one stride.
  int axis = view.ndim - 1;
  int64_t inner = 1;
  for (; axis >= 0 && inner < cols; --axis) {
    if (view.shape[axis] != 1 && view.strides[axis] != inner) return false;
    inner *= view.shape[axis];
  }
  if (inner != cols) return false;
  bool met = false;  // a dimension that counts rows
  int64_t next = 0;  // stride the next slower one must have; 0 is one too: a repeated row
  for (; axis >= 0; --axis) {
    if (view.shape[axis] == 1) continue;
    if (!met) {
      out->stride = next = view.strides[axis];
      met = true;
    } else if (view.strides[axis] != next) {
      return false;
    }
    next *= view.shape[axis];
  }
  return true;
}

void copy_contiguous(const TensorView& view, void* out) {
  if (view.numel() == 0) return;
  if (view.is_contiguous()) {
    std::memcpy(out, view.data, view.bytes());
    return;
  }
  copy_axis(view, 0, static_cast<const char*>(view.data), size_of(view.dtype), static_cast<char*>(out));
}

}  // namespace vmo
