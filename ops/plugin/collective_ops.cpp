// SPDX-License-Identifier: Apache-2.0
// MindSpore's entry points to the ranks of a group: builtin primitives, which have no group on CPU otherwise, and the
// embedding whose rows the ranks share. The comment of each gives its arguments in call order.
#include <cstring>

#include "arguments.h"
#include "collectives/collectives.h"
#include "core/check.h"
#include "core/row_tasks.h"

namespace vmo::plugin {
namespace {

// x -> y: sums are the only reduction that models ask for
Status run_all_reduce(const Arguments& args) {
  TensorView x, y;
  VMO_TRY(args.require_count(2));
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.output(1, &y));
  return all_reduce(args.op(), x, y);
}

// x [d0, ...] -> y [ranks * d0, ...]
Status run_all_gather(const Arguments& args) {
  TensorView x, y;
  VMO_TRY(args.require_count(2));
  VMO_TRY(args.input(0, &x));
  VMO_TRY(args.output(1, &y));
  return all_gather(args.op(), x, y);
}

enum EmbeddingArgument { kWeight, kIds, kLike, kPart, kEmbeddingArguments };

// Rows of `weight` [R, K], which are those from `first` on, picked by ids; zeros for ids of other ranks.
Status pick_own(const Arguments& args, const TensorView& weight, const TensorView& ids, int64_t first, int64_t total,
                const TensorView& y) {
  Rows rows;
  VMO_TRY(require_rank(args.op(), "weight", weight, 2));
  VMO_TRY(require_index_type(args.op(), "ids", ids));
  VMO_TRY(require_rank(args.op(), "ids", ids, 1));
  VMO_TRY(require_dtype(args.op(), "weight", weight, y.dtype));
  VMO_TRY(require_output(args.op(), "y", y, ids.shape[0] * weight.shape[1]));
  VMO_TRY(weight_rows(args.op(), "weight", weight, weight.dtype, weight.shape[1], &rows));
  for (int64_t i = 0; i < ids.shape[0]; ++i) {
    const int64_t id = index_at(ids, i);
    if (id < 0 || id >= total) {
      return fail(args.op(), "ids[%lld] is %lld; expected a value from 0 to %lld", static_cast<long long>(i),
                  static_cast<long long>(id), static_cast<long long>(total - 1));
    }
  }
  const auto element = static_cast<int64_t>(size_of(y.dtype));
  const int64_t row_bytes = rows.cols * element;
  for_row_ranges(ids.shape[0], row_bytes, [&](int64_t row0, int64_t row1) {
    for (int64_t row = row0; row < row1; ++row) {
      char* to = static_cast<char*>(y.data) + row * row_bytes;
      const int64_t own = index_at(ids, row) - first;
      if (own >= 0 && own < rows.rows) {
        std::memcpy(to, rows.data + own * rows.stride * element, static_cast<size_t>(row_bytes));
      } else {
        std::memset(to, 0, static_cast<size_t>(row_bytes));
      }
    }
  });
  return kOk;
}

// weight [R, K], ids int32 [T], any tensor of the result's dtype, part int32 [2]: the id of the first row and the number of
// all ranks' rows -> y [T, K], the same on all ranks
Status run_embedding_part(const Arguments& args) {
  TensorView weight, ids, part, y;
  VMO_TRY(args.require_count(kEmbeddingArguments + 1));
  VMO_TRY(args.output(1, &y));
  VMO_TRY(args.weight(kWeight, y.dtype, &weight));
  VMO_TRY(args.input(kIds, &ids));
  VMO_TRY(args.input(kPart, &part));
  VMO_TRY(require_vector(args.op(), "part", part, DType::kInt32, 2));
  VMO_TRY(pick_own(args, weight, ids, index_at(part, 0), index_at(part, 1), y));
  return all_reduce(args.op(), y, y);
}

}  // namespace
}  // namespace vmo::plugin

VMO_DEFINE_BUILTIN(AllReduce, vmo::plugin::run_all_reduce)
VMO_DEFINE_BUILTIN(AllGather, vmo::plugin::run_all_gather)
VMO_DEFINE_KERNEL(vmo_embedding_part, vmo::plugin::run_embedding_part)
