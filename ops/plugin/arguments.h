// SPDX-License-Identifier: Apache-2.0
// The arguments of one MindSpore kernel call as tensor views and scalars.
#pragma once

#include "kernel_input_info.h"
#include "vmo/api.h"
#include "vmo/error.h"
#include "vmo/stats.h"
#include "vmo/tensor_view.h"

// Parameters every kernel of MindSpore's plain-C interface gets.
#define VMO_KERNEL_PARAMETERS \
  int nparam, void **params, int *ndims, int64_t **shapes, const char **dtypes, void *stream, void *extra

namespace vmo::plugin {

class Arguments {
 public:
  // `info` is null for ops.Custom kernels: MindSpore tells them no strides or offsets, so their tensors are taken as
  // contiguous. In graph mode a view (of mint.split, narrow, transpose, ...) arrives as the pointer of its base and
  // would be misread: the caller must pass a contiguous copy.
  Arguments(const char* op, int count, void** params, const int* ndims, int64_t** shapes, const char** dtypes,
            KernelInputInfo* info, int custom_outputs)
      : op_(op), count_(count), params_(params), ndims_(ndims), shapes_(shapes), dtypes_(dtypes), info_(info),
        custom_outputs_(custom_outputs) {}

  const char* op() const { return op_; }
  int count() const { return count_; }
  bool absent(int i) const { return params_[i] == nullptr; }
  // kError unless at least `expected` arguments came.
  Status require_count(int expected) const;
  // Input tensor with its strides; a null-data view for None.
  Status input(int i, TensorView* out) const;
  // Input that holds weights for values of type `dtype`: bfloat16 may come as int16 of the same bits, since MindSpore
  // moves bfloat16 parameters to memory of its own.
  Status weight(int i, DType dtype, TensorView* out) const;
  // Input that holds codes of weights: int8, or bytes of two int4 (then read as int8).
  Status codes(int i, TensorView* out, bool* int4) const;
  // Output counted from the end: output(1) is the last argument.
  Status output(int from_end, TensorView* out) const;
  Status integer(int i, const char* name, int64_t* out) const;
  Status real(int i, const char* name, double* out) const;
  Status boolean(int i, const char* name, bool* out) const;
  // Error unless argument i is None.
  Status require_none(int i, const char* name) const;
  // Adds the memory of all outputs to the footprint recording.
  void record_outputs() const;

 private:
  Status view(int i, DType dtype, TensorView* out) const;
  Status input_as(int i, DType dtype, TensorView* out) const;

  const char* op_;
  int count_;
  void** params_;
  const int* ndims_;
  int64_t** shapes_;
  const char** dtypes_;
  KernelInputInfo* info_;
  int custom_outputs_;  // without `info_`, which would tell
};

using Body = Status (*)(const Arguments& arguments);

// Runs body(arguments) with counting, the no-op switch and no exception beyond this point. `plan` takes and records the
// work memory of a kernel that keeps whole activations there; it runs only while a footprint is recorded.
int run_kernel(OpStats& stats, const Arguments& arguments, Body body, Body plan = nullptr);

}  // namespace vmo::plugin

// Defines the exported entry `name`; `info` is null or the op-plugin `extra`.
#define VMO_DEFINE_ENTRY(name, info, outputs, body, plan)                                                         \
  namespace {                                                                                                     \
  ::vmo::OpStats g_stats_##name(#name);                                                                           \
  }                                                                                                               \
  VMO_API int name(VMO_KERNEL_PARAMETERS) {                                                                       \
    static_cast<void>(stream);                                                                                    \
    static_cast<void>(extra);                                                                                     \
    return ::vmo::plugin::run_kernel(                                                                             \
        g_stats_##name, ::vmo::plugin::Arguments(#name, nparam, params, ndims, shapes, dtypes, info, outputs), body, \
        plan);                                                                                                    \
  }
// A kernel of ops.Custom, of one output.
#define VMO_DEFINE_KERNEL(name, body) VMO_DEFINE_ENTRY(name, nullptr, 1, body, nullptr)
// One of two outputs that keeps activations in work memory, which `plan` takes.
#define VMO_DEFINE_SUBLAYER(name, body, plan) VMO_DEFINE_ENTRY(name, nullptr, 2, body, plan)
// A builtin primitive: its `extra` tells strides and the number of inputs.
#define VMO_DEFINE_BUILTIN(name, body) \
  VMO_DEFINE_ENTRY(name, static_cast<::vmo::plugin::KernelInputInfo*>(extra), 0, body, nullptr)
