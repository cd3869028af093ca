// SPDX-License-Identifier: Apache-2.0
// Embedding look-up and general gather.
#include "check.h"
#include "row_tasks.h"
#include "vmo/core.h"

namespace vmo {
namespace {

// How the tensors fold: params [batch, outer, extent, inner], indices [batch, picks].
struct Fold {
  int64_t batch = 1, outer = 1, extent = 1, inner = 1, picks = 1;
};

Status fold_shapes(const char* op, const TensorView& params, const TensorView& indices, int axis, int64_t batch_dims,
                   Fold* fold) {
  if (batch_dims < 0 || batch_dims > axis || batch_dims > indices.ndim) {
    return fail(op, "batch_dims %lld is out of range for params %s, indices %s and axis %d",
                static_cast<long long>(batch_dims), shape_text(params), shape_text(indices), axis);
  }
  for (int i = 0; i < params.ndim; ++i) {
    if (i < batch_dims && params.shape[i] != indices.shape[i]) {
      return fail(op, "params %s and indices %s differ in batch axis %d", shape_text(params), shape_text(indices), i);
    }
    int64_t& part = i < batch_dims ? fold->batch : i < axis ? fold->outer : i == axis ? fold->extent : fold->inner;
    part *= params.shape[i];
  }
  for (int i = static_cast<int>(batch_dims); i < indices.ndim; ++i) fold->picks *= indices.shape[i];
  return kOk;
}

// All indices, checked and made non-negative, as int64 in scratch memory.
Status read_indices(const char* op, const TensorView& indices, int64_t extent, const int64_t** out) {
  const int64_t count = indices.numel();
  const size_t element = size_of(indices.dtype);
  auto* values = static_cast<int64_t*>(scratch(ScratchSlot::kTasks, static_cast<size_t>(count) * (sizeof(int64_t) + element)));
  char* raw = reinterpret_cast<char*>(values + count);
  copy_contiguous(indices, raw);
  for (int64_t i = 0; i < count; ++i) {
    const char* address = raw + i * static_cast<int64_t>(element);
    const int64_t value = indices.dtype == DType::kInt64 ? load_unaligned<int64_t>(address)
                                                         : load_unaligned<int32_t>(address);
    if (value < -extent || value >= extent) {
      return fail(op, "indices[%lld] is %lld; expected a value from %lld to %lld", static_cast<long long>(i),
                  static_cast<long long>(value), static_cast<long long>(-extent), static_cast<long long>(extent - 1));
    }
    values[i] = value < 0 ? value + extent : value;
  }
  *out = values;
  return kOk;
}

}  // namespace

Status gather(const char* op, const TensorView& params, const TensorView& indices, int64_t axis, int64_t batch_dims,
              const TensorView& out) {
  int split = 0;
  VMO_TRY(require_axis(op, params, axis, &split));
  VMO_TRY(require_index_type(op, "indices", indices));
  VMO_TRY(require_dtype(op, "out", out, params.dtype));
  Fold fold;
  VMO_TRY(fold_shapes(op, params, indices, split, batch_dims, &fold));
  VMO_TRY(require_output(op, "out", out, fold.batch * fold.outer * fold.picks * fold.inner));
  if (out.numel() == 0) return kOk;
  const int64_t* picks = nullptr;
  VMO_TRY(read_indices(op, indices, fold.extent, &picks));
  Rows rows;  // one row per (batch, outer, extent)
  VMO_TRY(input_rows(op, "params", params, fold.inner, ScratchSlot::kMaterialise0, &rows));
  const auto element = static_cast<int64_t>(size_of(params.dtype));
  const int64_t row_bytes = fold.inner * element, stride_bytes = rows.stride * element;
  for_row_ranges(fold.batch * fold.outer * fold.picks, row_bytes, [&](int64_t row0, int64_t row1) {
    for (int64_t row = row0; row < row1; ++row) {
      const int64_t group = row / fold.picks;  // (batch, outer)
      const int64_t pick = picks[group / fold.outer * fold.picks + row % fold.picks];
      std::memcpy(static_cast<char*>(out.data) + row * row_bytes,
                  rows.data + (group * fold.extent + pick) * stride_bytes, static_cast<size_t>(row_bytes));
    }
  });
  return kOk;
}

}  // namespace vmo
