// SPDX-License-Identifier: Apache-2.0
// weight_only_linear: checks, then the threaded product.
#include "check.h"
#include "linear_run.h"
#include "vmo/core.h"

namespace vmo {
namespace {

constexpr int64_t kGroupStep = 64;

Status choose_groups(const char* op, int64_t group, WeightOnlyArgs* args) {
  args->group = group == 0 ? args->inner : group;
  args->groups = 1;
  if (group == 0) return kOk;
  if (group < 0 || group % kGroupStep != 0 || args->inner % group != 0) {
    return fail(op, "got groups of %lld elements; expected a multiple of %lld that divides %lld, the rows of x",
                static_cast<long long>(group), static_cast<long long>(kGroupStep), static_cast<long long>(args->inner));
  }
  args->groups = args->inner / group;
  return kOk;
}

// Float32 [cols, groups], of one group also [cols]; null for null data.
Status group_values(const char* op, const char* name, const TensorView& view, int64_t cols, int64_t groups,
                    const char** values) {
  *values = static_cast<const char*>(view.data);
  if (view.data == nullptr) return kOk;
  if (groups == 1 && view.ndim == 1) return require_vector(op, name, view, DType::kFloat32, cols);
  VMO_TRY(require_dtype(op, name, view, DType::kFloat32));
  VMO_TRY(require_shape(op, name, view, {cols, groups}));
  return view.is_contiguous() ? kOk : fail(op, "argument %s has a stride; expected adjacent elements", name);
}

Status read_weight(const char* op, const CodedWeight& w, DType dtype, int64_t row_bytes, int index,
                   WeightOnlyArgs* args) {
  Rows rows;
  VMO_TRY(weight_rows(op, "weight", w.weight, DType::kInt8, row_bytes, &rows));
  const int64_t cols = args->cols[index] = w.weight.shape[0];
  args->w[index] = rows.data;
  args->ldw[index] = rows.stride;
  VMO_TRY(group_values(op, "scale", w.scale, cols, args->groups, &args->scale[index]));
  if (args->scale[index] == nullptr && cols > 0) return fail(op, "argument scale is missing");
  VMO_TRY(group_values(op, "offset", w.offset, cols, args->groups, &args->offset[index]));
  return optional_vector(op, "bias", w.bias, dtype, cols, &args->bias[index]);
}

}  // namespace

Status weight_only_linear(const char* op, const TensorView& x, WeightCodes codes, int64_t group, int weights,
                          const CodedWeight* w, const TensorView& y) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  if (x.dtype == DType::kFloat32) {
    return fail(op, "argument x has dtype float32; weights of codes are computed in float16 or bfloat16");
  }
  if (weights < 1 || weights > kMaxWeights) return fail(op, "got %d weights; expected 1 to %d", weights, kMaxWeights);
  WeightOnlyArgs args{};
  VMO_TRY(row_extents(op, "x", x, &args.rows, &args.inner));
  VMO_TRY(choose_groups(op, group, &args));
  const bool int4 = codes == WeightCodes::kInt4;
  const int64_t row_bytes = int4 ? int4_row_bytes(args.inner) : args.inner;
  for (int i = 0; i < weights; ++i) {
    VMO_TRY(read_weight(op, w[i], x.dtype, row_bytes, i, &args));
    args.ldy += args.cols[i];
  }
  Rows rows;
  VMO_TRY(input_rows(op, "x", x, args.inner, ScratchSlot::kMaterialise0, &rows));
  args.float_output = y.dtype == DType::kFloat32;
  if (!args.float_output) VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, args.rows * args.ldy));
  args.x = rows.data;
  args.ldx = rows.stride;
  args.weights = weights;
  args.y = static_cast<char*>(y.data);
  run_weight_only(*kernels, size_of(x.dtype), int4, args);
  return kOk;
}

}  // namespace vmo
