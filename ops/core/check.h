// SPDX-License-Identifier: Apache-2.0
// Argument checks shared by the operations; each names op, argument, found and expected.
#pragma once

#include <initializer_list>

#include "vmo/error.h"
#include "vmo/isa.h"
#include "vmo/scratch.h"
#include "vmo/tensor_view.h"

#define VMO_TRY(expression)                            \
  do {                                                 \
    if ((expression) != ::vmo::kOk) return ::vmo::kError; \
  } while (false)

namespace vmo {

constexpr int64_t kAny = -1;

// "[2, 3]"; valid until the thread's fourth next call.
const char* shape_text(const TensorView& view);
const char* shape_text(std::initializer_list<int64_t> shape);

// Refuses a view whose rank, extents or size cannot be those of a tensor; everything else here relies on them.
Status check_view(const char* op, const TensorView& view);

// Kernels of the element type, after checking that it is a dense one.
Status dense_kernels(const char* op, const char* name, DType dtype, const ElementKernels** kernels);
Status require_dtype(const char* op, const char* name, const TensorView& view, DType expected);
// kAny matches every extent.
Status require_shape(const char* op, const char* name, const TensorView& view, std::initializer_list<int64_t> expected);
Status require_rank(const char* op, const char* name, const TensorView& view, int rank);
// Adjacent elements [extent].
Status require_vector(const char* op, const char* name, const TensorView& view, DType expected, int64_t extent);
// The same of a tensor that may be absent (null data), with its elements.
template <class T>
Status optional_vector(const char* op, const char* name, const TensorView& view, DType expected, int64_t extent,
                       const T** elements) {
  *elements = static_cast<const T*>(view.data);
  return view.data == nullptr ? kOk : require_vector(op, name, view, expected, extent);
}
// Same element count, gap-free, not null (unless empty).
Status require_output(const char* op, const char* name, const TensorView& view, int64_t numel);
Status require_index_type(const char* op, const char* name, const TensorView& view);
Status require_axis(const char* op, const TensorView& view, int64_t axis, int* out);

// Number and length of the rows of x [..., K], from its shape alone: K may be 0.
Status row_extents(const char* op, const char* name, const TensorView& x, int64_t* rows, int64_t* inner);

// A weight [N, K] whose rows may be any distance apart but whose elements are adjacent: weights are never copied.
Status weight_rows(const char* op, const char* name, const TensorView& w, DType dtype, int64_t inner, Rows* out);

// Reads an input as rows of `cols` elements, copying it to the scratch slot when its strides do not allow that.
Status input_rows(const char* op, const char* name, const TensorView& view, int64_t cols, ScratchSlot slot, Rows* out);

// Element i of a gap-free or strided one-dimensional index tensor.
int64_t index_at(const TensorView& view, int64_t i);

}  // namespace vmo
