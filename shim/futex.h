// SPDX-License-Identifier: Apache-2.0
// The two futex operations that the library waits with, and the clock for their bounds.
//
// All that threads share around a fork goes through the few primitives here. A test replaces them
// (FORKSAFE_PRIMITIVES), and so decides in which order the threads take their steps.
//
// pthread_mutex_t does not serve: a child must be able to reset a held lock by a plain store, and
// the library must not need the functions that glibc before 2.34 keeps in libpthread.
#pragma once

#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "keep_errno.h"
#include "pages.h"

#ifdef FORKSAFE_PRIMITIVES
#include FORKSAFE_PRIMITIVES
#else

namespace forksafe {

template <typename T>
using Atomic = std::atomic<T>;

static_assert(sizeof(Atomic<uint32_t>) == sizeof(uint32_t), "a futex is a plain word");

/// The time as these system calls take it. A timespec may have 64-bit seconds where they have 32
/// (_TIME_BITS).
struct KernelTime {
  long seconds, nanoseconds;
};

/// Nanoseconds of CLOCK_MONOTONIC. Asks the kernel: another library may replace clock_gettime, and
/// libfaketime's clocks stand still if it is told to, so no bound would ever pass. Only for waits,
/// since a system call is slow. A filter may refuse it, because other code rarely makes it.
inline int64_t monotonic_ns() {
  const KeepErrno keep;
  KernelTime kernel_time;
  if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &kernel_time) == 0) {
    return int64_t{kernel_time.seconds} * 1000000000 + kernel_time.nanoseconds;
  }
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

/// Waits while `*word == value`, at most until `deadline` (monotonic_ns); may return early.
inline void futex_wait_until(Atomic<uint32_t>* word, uint32_t value, int64_t deadline) {
  const KeepErrno keep;
  int64_t left = deadline - monotonic_ns();
  if (left <= 0) return;
  constexpr int64_t kHourNs = int64_t{3600} * 1000000000;
  if (left > kHourNs) left = kHourNs;  // seconds have 32 bits on some architectures
  const KernelTime time = {static_cast<long>(left / 1000000000),
                           static_cast<long>(left % 1000000000)};
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &time, nullptr, 0);
}

/// Wakes every thread that waits on `word`.
inline void futex_wake_all(Atomic<uint32_t>* word) {
  const KeepErrno keep;
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

/// Sets the thread's signal mask, one bit for each of 64 signals. These two make the system call
/// themselves: glibc's function leaves out the signals that glibc uses, as that for cancellation.
inline void set_signal_mask(uint64_t mask) {
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, nullptr, sizeof mask);
}

/// Adds these signals to the thread's mask, which was `*old` before.
inline void add_to_signal_mask(uint64_t signals, uint64_t* old) {
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, &signals, old, sizeof signals);
}

/// Waits for the kernel's lock of the memory map, which a fork holds from the first page that it
/// copies to the last. `address` lies in a page of variables, which stay readable and writable.
inline void pass_memory_map(void* address) {
  const KeepErrno keep;
  const size_t page = page_size();
  const uintptr_t begin = page_of(reinterpret_cast<uintptr_t>(address), page);
  mprotect(reinterpret_cast<void*>(begin), page, PROT_READ | PROT_WRITE);
}

}  // namespace forksafe

#endif

namespace forksafe {

/// A lock for the library's own rare moments. A child puts it back with reset().
class Lock {
 public:
  void lock() {
    uint32_t expected = kFree;
    if (word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire)) return;
    while (word_.exchange(kWaitedFor, std::memory_order_acquire) != kFree) {
      futex_wait_until(&word_, kWaitedFor, INT64_MAX);
    }
  }
  void unlock() {
    if (word_.exchange(kFree, std::memory_order_release) == kWaitedFor) futex_wake_all(&word_);
  }
  void reset() { word_.store(kFree, std::memory_order_relaxed); }

 private:
  enum : uint32_t { kFree, kHeld, kWaitedFor };
  Atomic<uint32_t> word_{kFree};
};

}  // namespace forksafe
