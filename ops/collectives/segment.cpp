// SPDX-License-Identifier: Apache-2.0
// Segment.
#include "segment.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstring>
#include <new>

namespace vmo {
namespace {

using Word = std::atomic<uint32_t>;
using Clock = std::chrono::steady_clock;
static_assert(Word::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free,
              "words are shared between processes");

constexpr uint64_t kMagic = 0x31676573'6f6d76ull;  // "vmoseg1"
constexpr size_t kPage = 4096;
constexpr size_t kReason = 400;
constexpr auto kPause = std::chrono::microseconds(20), kYield = std::chrono::microseconds(200);
constexpr int kPausesPerClockRead = 16;
constexpr int64_t kLookNanoseconds = 100'000'000;  // how often a sleeper looks whether the other one is alive
constexpr double kPatience = 600.0;

// Shared between processes, hence not the private futex of the thread pool. False after a time-out.
bool futex_wait(Word& word, uint32_t expected) {
  timespec time{0, kLookNanoseconds};
  return syscall(SYS_futex, &word, FUTEX_WAIT, expected, &time, nullptr, 0) == 0 || errno != ETIMEDOUT;
}

void futex_wake(Word& word) { syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0); }

void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

bool reached(uint32_t published, uint32_t number) { return static_cast<int32_t>(published - number) >= 0; }

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// When the process began, in the kernel's ticks; 0 when it has ended. A process that ended and was not waited for yet
// still has an entry, and the next process with its number another beginning.
uint64_t beginning_of(int pid) {
  char name[64], text[1024];
  std::snprintf(name, sizeof(name), "/proc/%d/stat", pid);
  const int fd = ::open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t length = ::read(fd, text, sizeof(text) - 1);
  ::close(fd);
  if (length <= 0) return 0;
  text[length] = '\0';
  const char* rest = std::strrchr(text, ')');  // the command's name may hold anything
  char state = 0;
  unsigned long long began = 0;
  if (rest == nullptr || std::sscanf(rest + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
                                     &state, &began) != 2) {
    return 0;
  }
  return state == 'Z' || state == 'X' ? 0 : began;
}

int usable_cores() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

}  // namespace

struct Segment::Header {
  uint64_t magic;
  uint64_t count;
  std::atomic<uint32_t> stopped;  // rank + 1 of the first that stopped
  char reason[kReason];           // complete once `told` is set
  std::atomic<uint32_t> told;
};

// What one rank alone writes, but for `sleepers`.
struct alignas(128) Segment::Line {
  Word published;
  Word sleepers;  // ranks that sleep until `published` grows
  std::atomic<int32_t> pid;
  std::atomic<uint64_t> began;
  Message messages[2];
};

Segment::Segment(void* memory, size_t bytes, int rank, int count)
    : memory_(memory), bytes_(bytes), rank_(rank), count_(count), patience_(kPatience), crowded_(count > usable_cores()) {
  Line& own = line(rank);
  own.began = beginning_of(getpid());
  own.pid = getpid();
}

Segment::~Segment() {
  stop("it left the group");
  munmap(memory_, bytes_);
}

Segment::Header& Segment::header() const { return *static_cast<Header*>(memory_); }

Segment::Line& Segment::line(int rank) const {
  return *(reinterpret_cast<Line*>(static_cast<char*>(memory_) + kPage) + rank);
}

namespace {
size_t slots_begin() { return kPage + (kMaxRanks * 256 + kPage - 1) / kPage * kPage; }
size_t segment_bytes(int count) { return slots_begin() + static_cast<size_t>(count) * 2 * kSlotBytes; }
}  // namespace

char* Segment::slot(int rank, uint32_t number) const {
  const size_t index = static_cast<size_t>(rank) * 2 + number % 2;
  return static_cast<char*>(memory_) + slots_begin() + index * kSlotBytes;
}

Status Segment::create(int count, int* fd, Segment** out) {
  constexpr const char* kName = "group";
  static_assert(sizeof(Header) <= kPage && sizeof(Line) <= 256, "the layout has room for both");
  if (count < 1 || count > kMaxRanks) return fail(kName, "got %d ranks; expected 1 to %d", count, kMaxRanks);
  const int made = memfd_create("vllm_mindspore_ranks", MFD_CLOEXEC);
  if (made < 0) return fail(kName, "the system gives no shared memory: %s", std::strerror(errno));
  const bool sized = ftruncate(made, static_cast<off_t>(segment_bytes(count))) == 0;
  const Status status = sized ? map(made, 0, count, out)
                              : fail(kName, "the system gives no %zu bytes of shared memory: %s", segment_bytes(count),
                                     std::strerror(errno));
  if (status == kOk) {
    *fd = made;
  } else {
    ::close(made);
  }
  return status;
}

Status Segment::open(int pid, int fd, int rank, int count, Segment** out) {
  constexpr const char* kName = "group";
  if (count < 1 || count > kMaxRanks || rank < 1 || rank >= count) {
    return fail(kName, "got rank %d of %d; expected at most %d ranks and rank 0 to make the memory", rank, count,
                kMaxRanks);
  }
  char name[64];
  std::snprintf(name, sizeof(name), "/proc/%d/fd/%d", pid, fd);
  const int opened = ::open(name, O_RDWR | O_CLOEXEC);
  if (opened < 0) {
    return fail(kName, "rank %d cannot open the memory of rank 0 (process %d): %s; ranks must be processes of one machine "
                "and one user", rank, pid, std::strerror(errno));
  }
  const Status status = map(opened, rank, count, out);
  ::close(opened);
  return status;
}

Status Segment::map(int fd, int rank, int count, Segment** out) {
  constexpr const char* kName = "group";
  struct stat status {};
  const size_t bytes = segment_bytes(count);
  if (fstat(fd, &status) != 0 || static_cast<size_t>(status.st_size) != bytes) {
    return fail(kName, "the shared memory has %lld bytes; expected %zu for %d ranks",
                static_cast<long long>(status.st_size), bytes, count);
  }
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return fail(kName, "shared memory cannot be mapped: %s", std::strerror(errno));
  auto& header = *static_cast<Header*>(memory);
  if (rank == 0) {
    header.count = static_cast<uint64_t>(count);
    header.magic = kMagic;
  } else if (header.magic != kMagic || header.count != static_cast<uint64_t>(count)) {
    munmap(memory, bytes);
    return fail(kName, "the shared memory is not that of a group of %d ranks", count);
  }
  *out = new Segment(memory, bytes, rank, count);
  return kOk;
}

Status Segment::check(const char* op, int rank, double waited) const {
  const uint32_t stopped = header().stopped.load();
  if (stopped != 0) {
    const char* reason = header().told.load() != 0 ? header().reason : "no reason yet";
    return fail(op, "rank %u has stopped: %.*s", stopped - 1, static_cast<int>(kReason), reason);
  }
  const int pid = line(rank).pid.load();
  if (pid == 0 || beginning_of(pid) != line(rank).began.load()) {
    return fail(op, "rank %d (process %d) has ended", rank, pid);
  }
  if (waited < patience_) return kOk;
  return fail(op, "rank %d (process %d) has not answered for %.0f s", rank, pid, waited);
}

bool Segment::spin(const Line& other, uint32_t number) const {
  const auto start = Clock::now();
  for (auto now = start; now - start < kYield && !crowded_; now = Clock::now()) {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (reached(other.published.load(std::memory_order_acquire), number)) return true;
      cpu_pause();
    }
    if (now - start > kPause) sched_yield();
  }
  return reached(other.published.load(std::memory_order_acquire), number);
}

Status Segment::reach(const char* op, int rank, uint32_t number) {
  Line& other = line(rank);
  if (reached(other.published.load(std::memory_order_acquire), number) || spin(other, number)) return kOk;
  const auto start = Clock::now();
  Status status = kOk;
  other.sleepers.fetch_add(1);
  for (uint32_t seen = other.published.load(); !reached(seen, number); seen = other.published.load()) {
    if (header().stopped.load() == 0 && futex_wait(other.published, seen)) continue;
    // What a rank published before it ended counts.
    if (reached(other.published.load(), number)) break;
    status = check(op, rank, seconds_since(start));
    if (status != kOk) break;
  }
  other.sleepers.fetch_sub(1);
  return status;
}

Status Segment::await_room(const char* op) {
  for (int other = 0; other < count_; ++other) {
    if (other != rank_ && reach(op, other, next_ - 1) != kOk) return kError;
  }
  return kOk;
}

uint32_t Segment::publish(const Message& message) {
  Line& own = line(rank_);
  const uint32_t number = next_++;
  own.messages[number % 2] = message;
  own.published.store(number);
  if (own.sleepers.load() > 0) futex_wake(own.published);
  return number;
}

Status Segment::await(const char* op, int rank, uint32_t number, const Message& expected) {
  if (reach(op, rank, number) != kOk) return kError;
  const Message& found = line(rank).messages[number % 2];
  if (found.operation == expected.operation && found.detail == expected.detail && found.bytes == expected.bytes) {
    return kOk;
  }
  return fail(op, "ranks are out of step: rank %d sends %llu bytes (operation %d, detail %d), rank %d expects %llu "
              "(operation %d, detail %d)", rank, static_cast<unsigned long long>(found.bytes), found.operation,
              found.detail, rank_, static_cast<unsigned long long>(expected.bytes), expected.operation, expected.detail);
}

void Segment::stop(const char* reason) {
  uint32_t nobody = 0;
  if (!header().stopped.compare_exchange_strong(nobody, static_cast<uint32_t>(rank_) + 1)) return;
  std::snprintf(header().reason, kReason, "%s", reason);
  header().told = 1;
  for (int other = 0; other < count_; ++other) futex_wake(line(other).published);
}

}  // namespace vmo
