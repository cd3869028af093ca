// SPDX-License-Identifier: Apache-2.0
// A strided view of a tensor that somebody else owns.
#pragma once

#include "vmo/dtype.h"

namespace vmo {

constexpr int kMaxRank = 8;

// Strides count elements, not bytes; they are ignored where the extent is 0 or 1. Layout is part of the C API.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kInvalid;
  int32_t ndim = 0;
  int64_t shape[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};

  // Number of elements (1 for a scalar).
  int64_t numel() const;
  // shape[axis], counting from the end when axis < 0.
  int64_t dim(int axis) const { return shape[axis < 0 ? ndim + axis : axis]; }
  // Elements lie in row-major order without gaps.
  bool is_contiguous() const;
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype); }
};

// Row-major view without gaps.
TensorView contiguous_view(void* data, DType dtype, int ndim, const int64_t* shape);

// Two-dimensional reading of a tensor: `rows` rows of `cols` adjacent elements, `stride` elements apart.
struct Rows {
  const char* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
};

// Reads a tensor as Rows of `cols` elements; false when no single row stride describes it.
bool as_rows(const TensorView& view, int64_t cols, Rows* out);

// Copies any strided view into gap-free row-major memory at `out` (view.bytes() long).
void copy_contiguous(const TensorView& view, void* out);

}  // namespace vmo
