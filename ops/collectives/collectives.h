// SPDX-License-Identifier: Apache-2.0
// What the ranks of a tensor-parallel group compute together. A process belongs to one group at most; without one, or in
// a group of one rank, everything here is a copy or nothing.
//
// All ranks call the same operations in the same order, one at a time. An operation whose peer has ended, has stopped or
// does something else returns an error that names the rank.
#pragma once

#include "vmo/error.h"
#include "vmo/tensor_view.h"

namespace vmo {

// Rank 0 makes the group (`fd` names its memory in this process, until the caller closes it); the others join it.
Status create_group(int count, int* fd);
Status join_group(int pid, int fd, int rank, int count);
void leave_group();
// Tells the others that this rank has failed.
void stop_group(const char* reason);
void set_group_patience(double seconds);
int group_rank();
int group_count();

// y = the sum of the x of all ranks, float32, float16 or bfloat16: added in float32 in the order of the ranks and rounded
// once, so that all ranks have the same bits. y may be x.
Status all_reduce(const char* op, const TensorView& x, const TensorView& y);
// Where this rank may write its part of the next all_reduce, so that it is not copied; null where it must be.
Status partial_sums(const char* op, size_t bytes, char** out);
// all_reduce of what has been written there.
Status all_reduce_partial(const char* op, const TensorView& y);
// y [count * d0, ...] = the x [d0, ...] of all ranks one after the other.
Status all_gather(const char* op, const TensorView& x, const TensorView& y);
// On rank 0, y [rows, W] = the x [rows, N] of all ranks side by side, as many columns as W has (at most count * N, in the
// columns of each row); the others only give theirs (null data).
Status gather_columns(const char* op, const TensorView& x, const TensorView& y);
// x of rank `root` on all ranks.
Status broadcast(const char* op, const TensorView& x, int root);

}  // namespace vmo
