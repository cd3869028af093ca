// SPDX-License-Identifier: Apache-2.0
// The operations of collectives.h over a Segment.
#include "collectives.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/check.h"
#include "core/row_tasks.h"
#include "segment.h"
#include "vmo/core.h"
#include "vmo/kernel_table.h"

namespace vmo {
namespace {

enum Operation : int32_t { kReduce = 1, kAllGather, kGatherColumns, kBroadcast };

// Leaked at the end of the process on purpose: kernels may still run.
Segment* g_segment = nullptr;

Status set_group(Status status, Segment* segment) {
  if (status == kOk) g_segment = segment;
  return status;
}

Status require_free() {
  return g_segment == nullptr ? kOk : fail("group", "this process already is a rank of a group");
}

bool alone() { return g_segment == nullptr || g_segment->count() == 1; }

Status require_gap_free(const char* op, const char* name, const TensorView& view) {
  if (view.is_contiguous() && (view.data != nullptr || view.numel() == 0)) return kOk;
  return fail(op, "argument %s must be gap-free memory", name);
}

void copy_bytes(char* to, const char* from, size_t bytes) {
  for_row_ranges(static_cast<int64_t>(bytes), 1, [&](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

// Calls body(offset, bytes) for pieces of at most a slot.
template <class Body>
Status in_pieces(size_t bytes, Body body) {
  for (size_t offset = 0; offset < bytes; offset += kSlotBytes) {
    VMO_TRY(body(offset, std::min(kSlotBytes, bytes - offset)));
  }
  return kOk;
}

// Publishes this rank's slot, which holds `bytes` of its part; y = the sum of all.
Status reduce_slots(const char* op, DType dtype, size_t bytes, char* y) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", dtype, &kernels));
  Segment& segment = *g_segment;
  const Message message{kReduce, static_cast<int32_t>(dtype), bytes};
  const uint32_t number = segment.publish(message);
  const char* parts[kMaxRanks];
  for (int rank = 0; rank < segment.count(); ++rank) {
    parts[rank] = segment.slot(rank, number);
    if (rank != segment.rank()) VMO_TRY(segment.await(op, rank, number, message));
  }
  const auto element = static_cast<int64_t>(size_of(dtype));
  for_row_ranges(static_cast<int64_t>(bytes) / element, 1, [&](int64_t begin, int64_t end) {
    const char* from[kMaxRanks];
    for (int rank = 0; rank < segment.count(); ++rank) from[rank] = parts[rank] + begin * element;
    kernels->sum(from, segment.count(), end - begin, y + begin * element);
  });
  return kOk;
}

// Copies the elements [begin, end) of x [rows, N], which are in `part`, to the columns from `first` of y [rows, W].
void place_columns(const TensorView& y, int64_t columns, int64_t first, int64_t begin, int64_t end, const char* part) {
  const auto element = static_cast<int64_t>(size_of(y.dtype));
  const int64_t width = std::min(columns, y.shape[1] - first);
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / columns, column = at % columns, length = std::min(columns - column, end - at);
    const int64_t kept = std::min(length, width - column);
    if (kept > 0) {
      std::memcpy(static_cast<char*>(y.data) + (row * y.shape[1] + first + column) * element,
                  part + (at - begin) * element, static_cast<size_t>(kept * element));
    }
    at += length;
  }
}

Status check_columns(const char* op, const TensorView& x, const TensorView& y) {
  VMO_TRY(require_rank(op, "x", x, 2));
  VMO_TRY(require_gap_free(op, "x", x));
  if (group_rank() != 0) return kOk;
  VMO_TRY(require_rank(op, "y", y, 2));
  VMO_TRY(require_gap_free(op, "y", y));
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  if (y.shape[0] == x.shape[0] && y.shape[1] <= x.shape[1] * group_count()) return kOk;
  return fail(op, "argument y has shape %s; expected as many rows as x %s and at most %d times its columns",
              shape_text(y), shape_text(x), group_count());
}

}  // namespace

Status create_group(int count, int* fd) {
  VMO_TRY(require_free());
  Segment* made = nullptr;
  const Status status = Segment::create(count, fd, &made);
  return set_group(status, made);
}

Status join_group(int pid, int fd, int rank, int count) {
  VMO_TRY(require_free());
  Segment* joined = nullptr;
  const Status status = Segment::open(pid, fd, rank, count, &joined);
  return set_group(status, joined);
}

void leave_group() {
  delete g_segment;
  g_segment = nullptr;
}

void stop_group(const char* reason) {
  if (g_segment != nullptr) g_segment->stop(reason);
}

void set_group_patience(double seconds) {
  if (g_segment != nullptr) g_segment->set_patience(seconds);
}

int group_rank() { return g_segment == nullptr ? 0 : g_segment->rank(); }
int group_count() { return g_segment == nullptr ? 1 : g_segment->count(); }

Status partial_sums(const char* op, size_t bytes, char** out) {
  *out = nullptr;
  if (alone() || bytes > kSlotBytes || bytes == 0) return kOk;
  VMO_TRY(g_segment->await_room(op));
  *out = g_segment->slot(g_segment->rank(), g_segment->next());
  return kOk;
}

Status all_reduce_partial(const char* op, const TensorView& y) {
  VMO_TRY(require_gap_free(op, "y", y));
  if (alone() || y.bytes() > kSlotBytes) return fail(op, "no part of %zu bytes has been written", y.bytes());
  return reduce_slots(op, y.dtype, y.bytes(), static_cast<char*>(y.data));
}

Status all_reduce(const char* op, const TensorView& x, const TensorView& y) {
  const ElementKernels* kernels = nullptr;
  VMO_TRY(dense_kernels(op, "x", x.dtype, &kernels));
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, x.numel()));
  if (alone()) return x.data == y.data ? kOk : copy(op, x, y);
  VMO_TRY(require_gap_free(op, "x", x));
  return in_pieces(x.bytes(), [&](size_t offset, size_t bytes) {
    char* slot = nullptr;
    VMO_TRY(partial_sums(op, bytes, &slot));
    copy_bytes(slot, static_cast<const char*>(x.data) + offset, bytes);
    return reduce_slots(op, x.dtype, bytes, static_cast<char*>(y.data) + offset);
  });
}

Status all_gather(const char* op, const TensorView& x, const TensorView& y) {
  VMO_TRY(require_gap_free(op, "x", x));
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, x.numel() * group_count()));
  if (alone()) return copy(op, x, y);
  Segment& segment = *g_segment;
  return in_pieces(x.bytes(), [&](size_t offset, size_t bytes) {
    VMO_TRY(segment.await_room(op));
    copy_bytes(segment.slot(segment.rank(), segment.next()), static_cast<const char*>(x.data) + offset, bytes);
    const Message message{kAllGather, static_cast<int32_t>(x.dtype), bytes};
    const uint32_t number = segment.publish(message);
    for (int rank = 0; rank < segment.count(); ++rank) {
      if (rank != segment.rank()) VMO_TRY(segment.await(op, rank, number, message));
      char* to = static_cast<char*>(y.data) + static_cast<size_t>(rank) * x.bytes() + offset;
      copy_bytes(to, segment.slot(rank, number), bytes);
    }
    return kOk;
  });
}

Status gather_columns(const char* op, const TensorView& x, const TensorView& y) {
  VMO_TRY(check_columns(op, x, y));
  const int64_t columns = x.shape[1];
  const auto element = static_cast<int64_t>(size_of(x.dtype));
  if (group_rank() == 0) place_columns(y, columns, 0, 0, x.numel(), static_cast<const char*>(x.data));
  if (alone()) return kOk;
  Segment& segment = *g_segment;
  return in_pieces(x.bytes(), [&](size_t offset, size_t bytes) {
    const Message message{kGatherColumns, static_cast<int32_t>(x.dtype), bytes};
    VMO_TRY(segment.await_room(op));
    if (segment.rank() != 0) {
      copy_bytes(segment.slot(segment.rank(), segment.next()), static_cast<const char*>(x.data) + offset, bytes);
    }
    const uint32_t number = segment.publish(message);
    const int64_t begin = static_cast<int64_t>(offset) / element, end = begin + static_cast<int64_t>(bytes) / element;
    for (int rank = 1; segment.rank() == 0 && rank < segment.count(); ++rank) {
      VMO_TRY(segment.await(op, rank, number, message));
      place_columns(y, columns, rank * columns, begin, end, segment.slot(rank, number));
    }
    return kOk;
  });
}

Status broadcast(const char* op, const TensorView& x, int root) {
  VMO_TRY(require_gap_free(op, "x", x));
  if (root < 0 || root >= group_count()) return fail(op, "got root %d of %d ranks", root, group_count());
  if (alone()) return kOk;
  Segment& segment = *g_segment;
  return in_pieces(x.bytes(), [&](size_t offset, size_t bytes) {
    char* own = static_cast<char*>(x.data) + offset;
    const Message message{kBroadcast, root, bytes};
    VMO_TRY(segment.await_room(op));
    if (segment.rank() == root) copy_bytes(segment.slot(root, segment.next()), own, bytes);
    const uint32_t number = segment.publish(message);
    if (segment.rank() == root) return kOk;
    VMO_TRY(segment.await(op, root, number, message));
    copy_bytes(own, segment.slot(root, number), bytes);
    return kOk;
  });
}

}  // namespace vmo
