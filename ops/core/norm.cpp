// SPDX-License-Identifier: Apache-2.0
// rms_norm and add_rms_norm.
#include "check.h"
#include "quantize.h"
#include "row_tasks.h"
#include "vmo/core.h"

namespace vmo {
namespace {

Status check_gamma(const char* op, const TensorView& x, const TensorView& gamma) {
  VMO_TRY(require_dtype(op, "gamma", gamma, x.dtype));
  bool aligned = gamma.ndim >= 1 && gamma.ndim <= x.ndim;
  for (int i = 1; aligned && i <= gamma.ndim; ++i) aligned = gamma.dim(-i) == x.dim(-i);
  if (!aligned) {
    return fail(op, "argument gamma has shape %s; expected the trailing axes of x %s", shape_text(gamma),
                shape_text(x));
  }
  if (gamma.numel() == 0) return fail(op, "argument gamma is empty; expected at least one element");
  return kOk;
}

// All but y, of which `args` lacks address and stride; `rows`: of x.
Status norm_args(const char* op, const TensorView& x, const TensorView* residual, const TensorView& gamma,
                 double epsilon, const TensorView& rstd, const TensorView* sum, NormArgs* out, int64_t* rows) {
  VMO_TRY(check_gamma(op, x, gamma));
  const int64_t cols = gamma.numel();
  Rows x_rows, gamma_rows, residual_rows;
  VMO_TRY(input_rows(op, "x", x, cols, ScratchSlot::kMaterialise0, &x_rows));
  VMO_TRY(input_rows(op, "gamma", gamma, cols, ScratchSlot::kMaterialise1, &gamma_rows));
  NormArgs args{};
  if (rstd.data != nullptr) {
    VMO_TRY(require_dtype(op, "rstd", rstd, DType::kFloat32));
    VMO_TRY(require_output(op, "rstd", rstd, x_rows.rows));
    args.rstd = static_cast<float*>(rstd.data);
  }
  if (residual != nullptr) {
    VMO_TRY(require_dtype(op, "residual", *residual, x.dtype));
    if (residual->numel() != x.numel()) {
      return fail(op, "argument residual has shape %s; expected that of x %s", shape_text(*residual), shape_text(x));
    }
    VMO_TRY(input_rows(op, "residual", *residual, cols, ScratchSlot::kMaterialise2, &residual_rows));
    VMO_TRY(require_dtype(op, "sum", *sum, x.dtype));
    VMO_TRY(require_output(op, "sum", *sum, x.numel()));
    args.residual = residual_rows.data;
    args.ldresidual = residual_rows.stride;
    args.sum = static_cast<char*>(sum->data);
    args.ldsum = cols;
  }
  args.x = x_rows.data;
  args.ldx = x_rows.stride;
  args.gamma = gamma_rows.data;
  args.epsilon = static_cast<float>(epsilon);
  args.cols = cols;
  *out = args;
  *rows = x_rows.rows;
  return kOk;
}

Status run(const char* op, const TensorView& x, const TensorView* residual, const TensorView& gamma, double epsilon,
           const TensorView& y, const TensorView& rstd, const TensorView* sum) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  NormArgs args{};
  int64_t rows = 0;
  VMO_TRY(norm_args(op, x, residual, gamma, epsilon, rstd, sum, &args, &rows));
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, x.numel()));
  args.ldy = args.cols;
  args.y = static_cast<char*>(y.data);
  for_row_ranges(rows, args.cols, [&](int64_t row0, int64_t row1) { kernels->norm(args, row0, row1); });
  return kOk;
}

}  // namespace

Status rms_norm(const char* op, const TensorView& x, const TensorView& gamma, double epsilon, const TensorView& y,
                const TensorView& rstd) {
  return run(op, x, nullptr, gamma, epsilon, y, rstd, nullptr);
}

Status add_rms_norm(const char* op, const TensorView& x, const TensorView& residual, const TensorView& gamma,
                    double epsilon, const TensorView& y, const TensorView& rstd, const TensorView& sum) {
  return run(op, x, &residual, gamma, epsilon, y, rstd, &sum);
}

Status norm_codes(const char* op, const TensorView& x, const TensorView& residual, const TensorView& gamma,
                  double epsilon, const ActivationCodes& how, const TensorView& codes, const TensorView& token_scale,
                  const TensorView& sum) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  const bool adds = residual.data != nullptr;
  NormArgs norm{};
  QuantizeArgs quantize{};
  int64_t rows = 0;
  VMO_TRY(require_vector(op, "gamma", gamma, x.dtype, x.dim(-1)));  // codes have the scales of whole rows
  VMO_TRY(norm_args(op, x, adds ? &residual : nullptr, gamma, epsilon, TensorView{}, adds ? &sum : nullptr, &norm,
                    &rows));
  VMO_TRY(quantize_args(op, x, how, codes, token_scale, &quantize));
  const size_t row_bytes = static_cast<size_t>(norm.cols) * size_of(x.dtype);
  for_row_ranges(rows, norm.cols, [&](int64_t row0, int64_t row1) {
    NormArgs to_row = norm;
    QuantizeArgs from_row = quantize;
    from_row.x = to_row.y = static_cast<char*>(scratch(ScratchSlot::kTile, row_bytes));  // one row: strides are 0
    for (int64_t row = row0; row < row1; ++row) {
      kernels->norm(to_row, row, row + 1);
      kernels->quantize(from_row, row, row + 1);
    }
  });
  return kOk;
}

}  // namespace vmo
