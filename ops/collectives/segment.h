// SPDX-License-Identifier: Apache-2.0
// The shared memory of a group of ranks, and how one waits in it for another.
//
// Ranks exchange numbered messages: each writes the part it gives into its slot of that number, publishes the number and
// reads the slots of others. There are two slots per rank, for odd and even numbers: before a rank writes number n it
// waits until all have published n - 1, and so have read n - 2.
//
// The memory has no name: it is gone with the last process that maps it, however that one ends.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "vmo/error.h"

namespace vmo {

constexpr int kMaxRanks = 64;
// Longer messages travel in pieces of this size.
constexpr size_t kSlotBytes = 512 << 10;

// What a rank says about the message in a slot, so that ranks that do different things notice.
struct Message {
  int32_t operation;
  int32_t detail;  // data type, or the rank that gives
  uint64_t bytes;
};

class Segment {
 public:
  // Memory for `count` ranks that others map by the descriptor `fd` of this process, which is set where that succeeds; this
  // is rank 0.
  static Status create(int count, int* fd, Segment** out);
  // Maps that of process `pid` as rank `rank`.
  static Status open(int pid, int fd, int rank, int count, Segment** out);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  int rank() const { return rank_; }
  int count() const { return count_; }
  // Number of the message that comes next.
  uint32_t next() const { return next_; }
  char* slot(int rank, uint32_t number) const;

  // Waits until this rank may write its slot of the next message.
  Status await_room(const char* op);
  // Publishes the next message; returns its number.
  uint32_t publish(const Message& message);
  // Waits for message `number` of another rank and checks that it is `expected`.
  Status await(const char* op, int rank, uint32_t number, const Message& expected);
  // Lets the others know that this rank will not answer any more, and why.
  void stop(const char* reason);
  // A living rank that does not answer for so long is given up.
  void set_patience(double seconds) { patience_ = seconds; }

 private:
  struct Header;
  struct Line;
  Segment(void* memory, size_t bytes, int rank, int count);
  static Status map(int fd, int rank, int count, Segment** out);
  Header& header() const;
  Line& line(int rank) const;
  Status check(const char* op, int rank, double waited) const;
  Status reach(const char* op, int rank, uint32_t number);
  bool spin(const Line& line, uint32_t number) const;

  void* memory_;
  size_t bytes_;
  int rank_, count_;
  uint32_t next_ = 1;
  double patience_;
  bool crowded_;  // more ranks than cores: nobody spins
};

}  // namespace vmo
