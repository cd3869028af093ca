// SPDX-License-Identifier: Apache-2.0
// Builtin primitives that move, split or convert elements: complete in dtypes and strides, because registering their
// names replaces MindSpore's own kernels.
#include <cstring>
#include <vector>

#include "arguments.h"
#include "core/check.h"
#include "vmo/core.h"

namespace vmo::plugin {
namespace {

Status copy_first_input(const Arguments& args, int count) {
  VMO_TRY(args.require_count(count));
  TensorView x, y;
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.output(1, &y));
  return copy(args.op(), x, y);
}

// x, shape -> y
Status run_reshape(const Arguments& args) { return copy_first_input(args, 3); }
// x -> y
Status run_tensor_move(const Arguments& args) { return copy_first_input(args, 2); }

// x -> y
Status run_zeros_like(const Arguments& args) {
  VMO_TRY(args.require_count(2));
  TensorView y;
  VMO_TRY(args.output(1, &y));
  if (y.numel() > 0) std::memset(y.data, 0, y.bytes());
  return kOk;
}

// x, dtype -> y
Status run_cast(const Arguments& args) {
  VMO_TRY(args.require_count(2));
  TensorView x, y;
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.output(1, &y));
  return cast(args.op(), x, y);
}

// x, sizes, axis -> one output per size
Status run_split_with_size(const Arguments& args) {
  constexpr int kInputs = 3;
  VMO_TRY(args.require_count(kInputs + 1));
  TensorView x;
  int64_t axis = 0;
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.integer(2, "dim", &axis));
  std::vector<TensorView> parts(static_cast<size_t>(args.count() - kInputs));
  for (size_t i = 0; i < parts.size(); ++i) {
    VMO_TRY(args.output(static_cast<int>(parts.size() - i), &parts[i]));
  }
  return split(args.op(), x, axis, static_cast<int>(parts.size()), parts.data());
}

}  // namespace
}  // namespace vmo::plugin

VMO_DEFINE_BUILTIN(Reshape, vmo::plugin::run_reshape)
VMO_DEFINE_BUILTIN(TensorMove, vmo::plugin::run_tensor_move)
VMO_DEFINE_BUILTIN(ZerosLike, vmo::plugin::run_zeros_like)
VMO_DEFINE_BUILTIN(Cast, vmo::plugin::run_cast)
VMO_DEFINE_BUILTIN(SplitWithSize, vmo::plugin::run_split_with_size)
