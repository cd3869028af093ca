// SPDX-License-Identifier: Apache-2.0
// The C functions of groups of ranks.
#include "check.h"
#include "collectives/collectives.h"
#include "guard.h"
#include "vmo/api.h"

namespace {

using vmo::fail;

int call(const char* op, const vmo_tensor* x, const vmo_tensor* y, vmo::Status (*body)(const char*, const vmo::TensorView&, const vmo::TensorView&)) {
  const vmo::TensorView nothing{};
  if (x == nullptr) return fail(op, "a required tensor is a null pointer");
  VMO_TRY(vmo::check_view(op, *x));
  if (y != nullptr) VMO_TRY(vmo::check_view(op, *y));
  return vmo::guarded(op, [&] { return body(op, *x, y == nullptr ? nothing : *y); });
}

}  // namespace

int vmo_group_create(int count, int* fd) {
  if (fd == nullptr) return fail("group", "fd is a null pointer");
  return vmo::guarded("group", [&] { return vmo::create_group(count, fd); });
}

int vmo_group_join(int pid, int fd, int rank, int count) {
  return vmo::guarded("group", [=] { return vmo::join_group(pid, fd, rank, count); });
}

void vmo_group_leave() { vmo::leave_group(); }
void vmo_group_stop(const char* reason) { vmo::stop_group(reason == nullptr ? "" : reason); }
void vmo_group_set_patience(double seconds) { vmo::set_group_patience(seconds); }
int vmo_group_rank() { return vmo::group_rank(); }
int vmo_group_count() { return vmo::group_count(); }

int vmo_all_reduce(const vmo_tensor* x, const vmo_tensor* y) { return call("all_reduce", x, y, vmo::all_reduce); }
int vmo_all_gather(const vmo_tensor* x, const vmo_tensor* y) { return call("all_gather", x, y, vmo::all_gather); }

int vmo_gather_columns(const vmo_tensor* x, const vmo_tensor* y) {
  return call("gather_columns", x, y, vmo::gather_columns);
}

int vmo_broadcast(const vmo_tensor* x, int root) {
  if (x == nullptr) return fail("broadcast", "x is a null pointer");
  VMO_TRY(vmo::check_view("broadcast", *x));
  return vmo::guarded("broadcast", [&] { return vmo::broadcast("broadcast", *x, root); });
}
