// SPDX-License-Identifier: Apache-2.0
// quantize.
#include "quantize.h"

#include "check.h"
#include "row_tasks.h"
#include "vmo/core.h"

namespace vmo {
namespace {

Status require_presence(const char* op, const char* name, const TensorView& view, bool expected) {
  if ((view.data != nullptr) == expected) return kOk;
  return fail(op, expected ? "argument %s is missing" : "argument %s is not for these scales", name);
}

}  // namespace

Status quantize_args(const char* op, const TensorView& x, const ActivationCodes& how, const TensorView& codes,
                     const TensorView& token_scale, QuantizeArgs* out) {
  int64_t row_count = 0, inner = 0;
  VMO_TRY(row_extents(op, "x", x, &row_count, &inner));
  VMO_TRY(require_dtype(op, "codes", codes, DType::kInt8));
  VMO_TRY(require_output(op, "codes", codes, x.numel()));
  if (inner == 0) return fail(op, "argument x of shape %s has empty rows", shape_text(x));
  const bool empty = x.numel() == 0, per_token = how.kind == CodeKind::kPerToken;
  VMO_TRY(require_presence(op, "offset", how.offset, !per_token));
  if (!per_token) VMO_TRY(require_presence(op, "scale", how.scale, true));
  if (!empty) VMO_TRY(require_presence(op, "token_scale", token_scale, per_token));
  QuantizeArgs args{};
  VMO_TRY(optional_vector(op, "scale", how.scale, DType::kFloat32, inner, &args.scale));
  VMO_TRY(optional_vector(op, "offset", how.offset, DType::kFloat32, inner, &args.offset));
  if (per_token) {
    VMO_TRY(require_dtype(op, "token_scale", token_scale, DType::kFloat32));
    VMO_TRY(require_output(op, "token_scale", token_scale, row_count));
    args.token_scale = static_cast<float*>(token_scale.data);
  }
  args.cols = inner;
  args.multiply = how.kind == CodeKind::kMultiply;
  args.codes = static_cast<int8_t*>(codes.data);
  *out = args;
  return kOk;
}

Status quantize(const char* op, const TensorView& x, const ActivationCodes& how, const TensorView& codes,
                const TensorView& token_scale) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  QuantizeArgs args{};
  VMO_TRY(quantize_args(op, x, how, codes, token_scale, &args));
  Rows rows;
  VMO_TRY(input_rows(op, "x", x, args.cols, ScratchSlot::kMaterialise0, &rows));
  args.x = rows.data;
  args.ldx = rows.stride;
  for_row_ranges(rows.rows, args.cols, [&](int64_t row0, int64_t row1) { kernels->quantize(args, row0, row1); });
  return kOk;
}

}  // namespace vmo
