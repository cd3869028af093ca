// SPDX-License-Identifier: Apache-2.0
// Builtin primitives of dense layers. The comment of each gives its arguments in call order.
#include "arguments.h"
#include "core/check.h"
#include "vmo/core.h"

namespace vmo::plugin {
namespace {

// a, b, transpose_a, transpose_b -> y
Status run_matmul(const Arguments& args) {
  VMO_TRY(args.require_count(5));
  TensorView a, b, y;
  bool transpose_a = false, transpose_b = false;
  VMO_TRY(args.input(0, &a));
  VMO_TRY(args.input(1, &b));
  VMO_TRY(args.boolean(2, "transpose_a", &transpose_a));
  VMO_TRY(args.boolean(3, "transpose_b", &transpose_b));
  VMO_TRY(args.output(1, &y));
  return matmul(args.op(), a, b, transpose_a, transpose_b, y);
}

// x, weight [N, K] or [K], bias or None -> y
Status run_dense(const Arguments& args) {
  VMO_TRY(args.require_count(4));
  TensorView x, weight, bias, y;
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.input(1, &weight));
  VMO_TRY(args.input(2, &bias));
  VMO_TRY(args.output(1, &y));
  if (weight.ndim == 1) {  // one output per row, without an axis of its own
    weight.ndim = 2;
    weight.shape[1] = weight.shape[0];
    weight.strides[1] = weight.strides[0];
    weight.shape[0] = 1;
    if (bias.data != nullptr && bias.ndim == 0) {
      bias.ndim = 1;
      bias.shape[0] = bias.strides[0] = 1;
    }
  }
  return linear(args.op(), x, 1, &weight, bias.data == nullptr ? nullptr : &bias, y);
}

// ids, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq -> y
Status run_embedding(const Arguments& args) {
  VMO_TRY(args.require_count(7));
  TensorView ids, weight, y;
  VMO_TRY(args.input(0, &ids));
  VMO_TRY(args.input(1, &weight));
  VMO_TRY(args.require_none(3, "max_norm"));
  VMO_TRY(args.output(1, &y));
  return gather(args.op(), weight, ids, 0, 0, y);
}

// params, indices, axis, batch_dims -> y
Status run_gather(const Arguments& args) {
  VMO_TRY(args.require_count(5));
  TensorView params, indices, y;
  int64_t axis = 0, batch_dims = 0;
  VMO_TRY(args.input(0, &params));
  VMO_TRY(args.input(1, &indices));
  VMO_TRY(args.integer(2, "axis", &axis));
  VMO_TRY(args.integer(3, "batch_dims", &batch_dims));
  VMO_TRY(args.output(1, &y));
  return gather(args.op(), params, indices, axis, batch_dims, y);
}

// x, gamma, epsilon -> y, rstd
Status run_rms_norm(const Arguments& args) {
  VMO_TRY(args.require_count(5));
  TensorView x, gamma, y, rstd;
  double epsilon = 0;
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.input(1, &gamma));
  VMO_TRY(args.real(2, "epsilon", &epsilon));
  VMO_TRY(args.output(2, &y));
  VMO_TRY(args.output(1, &rstd));
  return rms_norm(args.op(), x, gamma, epsilon, y, rstd);
}

// x1, x2, gamma, epsilon -> y, rstd, sum
Status run_add_rms_norm(const Arguments& args) {
  VMO_TRY(args.require_count(7));
  TensorView x, residual, gamma, y, rstd, sum;
  double epsilon = 0;
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.input(1, &residual));
  VMO_TRY(args.input(2, &gamma));
  VMO_TRY(args.real(3, "epsilon", &epsilon));
  VMO_TRY(args.output(3, &y));
  VMO_TRY(args.output(2, &rstd));
  VMO_TRY(args.output(1, &sum));
  return add_rms_norm(args.op(), x, residual, gamma, epsilon, y, rstd, sum);
}

// x, axis -> y
Status run_swiglu(const Arguments& args) {
  VMO_TRY(args.require_count(3));
  TensorView x, y;
  int64_t axis = 0;
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.integer(1, "dim", &axis));
  VMO_TRY(args.output(1, &y));
  return swiglu(args.op(), x, axis, y);
}

// x -> y
Status run_silu(const Arguments& args) {
  VMO_TRY(args.require_count(2));
  TensorView x, y;
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.output(1, &y));
  return silu(args.op(), x, y);
}

}  // namespace
}  // namespace vmo::plugin

VMO_DEFINE_BUILTIN(MatMul, vmo::plugin::run_matmul)
VMO_DEFINE_BUILTIN(Dense, vmo::plugin::run_dense)
VMO_DEFINE_BUILTIN(Embedding, vmo::plugin::run_embedding)
VMO_DEFINE_BUILTIN(Gather, vmo::plugin::run_gather)
VMO_DEFINE_BUILTIN(RmsNorm, vmo::plugin::run_rms_norm)
VMO_DEFINE_BUILTIN(AddRmsNorm, vmo::plugin::run_add_rms_norm)
VMO_DEFINE_BUILTIN(Swiglu, vmo::plugin::run_swiglu)
VMO_DEFINE_BUILTIN(SiLU, vmo::plugin::run_silu)
