// SPDX-License-Identifier: Apache-2.0
// Low-rank adapters (Hu et al. 2021, "LoRA"): products with an adapter's two matrices for the rows that use it.
#include <algorithm>

#include "check.h"
#include "row_tasks.h"
#include "vmo/core.h"
#include "vmo/kernel_table.h"

namespace vmo {
namespace {

struct Adapters {
  int64_t count, rank, inner, outputs;
};

Status check_adapters(const char* op, const TensorView& x, const TensorView& a, int parts, const TensorView* b,
                      Adapters* out) {
  if (parts < 1 || parts > kMaxWeights) return fail(op, "got %d parts; expected 1 to %d", parts, kMaxWeights);
  VMO_TRY(require_rank(op, "x", x, 2));
  VMO_TRY(require_dtype(op, "a", a, x.dtype));
  VMO_TRY(require_shape(op, "a", a, {kAny, kAny, x.shape[1]}));
  if (a.shape[1] % parts != 0) {
    return fail(op, "argument a has shape %s; expected a second extent that %d parts share", shape_text(a), parts);
  }
  *out = Adapters{a.shape[0], a.shape[1] / parts, x.shape[1], 0};
  for (int i = 0; i < parts; ++i) {
    VMO_TRY(require_dtype(op, "b", b[i], x.dtype));
    VMO_TRY(require_shape(op, "b", b[i], {kAny, out->count, out->rank}));
    out->outputs += b[i].shape[0];
  }
  return kOk;
}

// Entry `i` of `axis`, without that axis.
TensorView entry(const TensorView& view, int axis, int64_t i) {
  TensorView part = view;
  part.data = static_cast<char*>(view.data) + i * view.strides[axis] * static_cast<int64_t>(size_of(view.dtype));
  --part.ndim;
  std::copy(view.shape + axis + 1, view.shape + view.ndim, part.shape + axis);
  std::copy(view.strides + axis + 1, view.strides + view.ndim, part.strides + axis);
  return part;
}

// Columns [first, first + count) of a matrix.
TensorView columns(const TensorView& view, int64_t first, int64_t count) {
  TensorView part = view;
  part.data = static_cast<char*>(view.data) + first * view.strides[1] * static_cast<int64_t>(size_of(view.dtype));
  part.shape[1] = count;
  return part;
}

TensorView matrix(ScratchSlot slot, DType dtype, int64_t rows, int64_t cols) {
  const int64_t shape[2] = {rows, cols};
  return contiguous_view(scratch(slot, static_cast<size_t>(rows * cols) * size_of(dtype)), dtype, 2, shape);
}

Status check_slots(const char* op, const TensorView& slots, int64_t tokens, int64_t adapters) {
  VMO_TRY(require_index_type(op, "slots", slots));
  VMO_TRY(require_shape(op, "slots", slots, {tokens}));
  for (int64_t i = 0; i < tokens; ++i) {
    if (index_at(slots, i) >= adapters) {
      return fail(op, "slots[%lld] is %lld; expected less than the %lld adapters of a", static_cast<long long>(i),
                  static_cast<long long>(index_at(slots, i)), static_cast<long long>(adapters));
    }
  }
  return kOk;
}

// The numbers of the rows that use adapter `slot`, int64 [n].
TensorView rows_of(const TensorView& slots, int64_t slot) {
  auto* rows = static_cast<int64_t*>(
      scratch(ScratchSlot::kMaterialise1, static_cast<size_t>(slots.shape[0]) * sizeof(int64_t)));
  int64_t count = 0;
  for (int64_t i = 0; i < slots.shape[0]; ++i) {
    if (index_at(slots, i) == slot) rows[count++] = i;
  }
  return contiguous_view(rows, DType::kInt64, 1, &count);
}

// out[rows[i], first:] += delta[i]
void add_rows(const ElementKernels& kernels, const TensorView& rows, const TensorView& delta, int64_t first,
              const TensorView& out) {
  const int64_t cols = delta.shape[1];
  const auto element = static_cast<int64_t>(size_of(out.dtype));
  const auto* numbers = static_cast<const int64_t*>(rows.data);
  for_row_ranges(delta.shape[0], cols, [&](int64_t row0, int64_t row1) {
    for (int64_t row = row0; row < row1; ++row) {
      char* y = static_cast<char*>(out.data) + (numbers[row] * out.shape[1] + first) * element;
      kernels.accumulate(static_cast<const float*>(delta.data) + row * cols, cols, y);
    }
  });
}

Status add_adapter(const char* op, const ElementKernels& kernels, const TensorView& x, const TensorView& rows,
                   const TensorView& a, int parts, const TensorView* b, int64_t slot, const TensorView& out) {
  const TensorView picked = matrix(ScratchSlot::kGather, x.dtype, rows.shape[0], x.shape[1]);
  VMO_TRY(gather(op, x, rows, 0, 0, picked));
  const TensorView down = entry(a, 0, slot);
  const TensorView inner = matrix(ScratchSlot::kQuery, x.dtype, rows.shape[0], down.shape[0]);
  VMO_TRY(linear(op, picked, 1, &down, nullptr, inner));
  const int64_t rank = down.shape[0] / parts;
  int64_t first = 0;
  for (int i = 0; i < parts; ++i) {
    const TensorView up = entry(b[i], 1, slot);
    const TensorView delta = matrix(ScratchSlot::kTile, DType::kFloat32, rows.shape[0], up.shape[0]);
    VMO_TRY(linear(op, columns(inner, i * rank, rank), 1, &up, nullptr, delta));
    add_rows(kernels, rows, delta, first, out);
    first += up.shape[0];
  }
  return kOk;
}

}  // namespace

Status lora(const char* op, const TensorView& y, const TensorView& x, const TensorView& slots, const TensorView& a,
            int parts, const TensorView* b, const TensorView& out) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  Adapters adapters{};
  VMO_TRY(check_adapters(op, x, a, parts, b, &adapters));
  const int64_t tokens = x.shape[0];
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_shape(op, "y", y, {tokens, adapters.outputs}));
  VMO_TRY(check_slots(op, slots, tokens, adapters.count));
  VMO_TRY(require_dtype(op, "out", out, x.dtype));
  VMO_TRY(require_shape(op, "out", out, {tokens, adapters.outputs}));
  VMO_TRY(require_output(op, "out", out, tokens * adapters.outputs));
  VMO_TRY(copy(op, y, out));
  for (int64_t slot = 0; slot < adapters.count; ++slot) {
    const TensorView rows = rows_of(slots, slot);
    if (rows.shape[0] > 0) VMO_TRY(add_adapter(op, *kernels, x, rows, a, parts, b, slot, out));
  }
  return kOk;
}

}  // namespace vmo
