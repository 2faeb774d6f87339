// SPDX-License-Identifier: Apache-2.0
// A gate counts the threads that are inside a part of a runtime, which a fork must not interrupt.
// A fork closes the gate: threads that are inside go on to the end, newcomers wait outside.
//
// A gate takes none of the runtime's own locks. So a fork writes to none of the runtime's pages, it
// needs to know no order of locks, and threads that contend for the runtime can't starve it.
//
// A thread writes that it is inside, then reads whether the gate is closed; a fork writes that it
// is closed, then reads whether somebody is inside. At least one of them must see the other. Only
// sequential consistency, the default, promises that: acquire and release let both miss. The same
// holds for a thread that is about to sleep and one that wakes it.
//
// A gate is closed in one of three ways (fork_handlers.cpp says when):
// - shut: before other libraries' prepare handlers run, the fork waits for the threads inside.
//   Newcomers wait for long.
// - lent: other libraries' prepare handlers run. A handler may wait for a thread that computes.
//   Therefore a newcomer waits for kLentPatienceNs only, and then opens the gate for all threads.
//   The fork closes it again for its last steps, and waits for the threads that came in.
// - held: our own last steps, glibc's fork and the kernel's run until it opens. Newcomers wait for
//   long, and then take the right to hold it away from the fork (doors.cpp). One fork at a time
//   holds gates. Another one, which is not that far, can neither shut nor lend them.
#pragma once

#include "futex.h"

namespace forksafe {

class Gate {
 public:
  /// How long a newcomer waits while other libraries' prepare handlers run. Handlers take
  /// microseconds, and may lose the processor for some milliseconds.
  static constexpr int64_t kLentPatienceNs = 50 * 1000000;

  /// `depth` counts this thread's nested entries, at most 255. If there are more, the thread counts
  /// as outside when it has left 255 times. Only the outermost entry can find the gate closed. Then
  /// the result is false: the thread counts as inside, and must call `wait_outside` before it goes
  /// on, unless it is the thread that forks.
  bool enter(uint8_t* depth) {
    if (*depth != 0) {
      if (*depth != UINT8_MAX) ++*depth;
      return true;
    }
    *depth = 1;
    inside_.fetch_add(1);
    return closed_.load() == kOpen;
  }

  /// Leaves, waits until the gate is open, and comes in again. False where the gate was held for
  /// longer than `patience_ns`: the thread counts as inside, and the gate is closed. One that was
  /// shut for so long is opened, for all.
  bool wait_outside(int64_t patience_ns) {
    const int64_t deadline = monotonic_ns() + patience_ns;
    for (;;) {
      if (inside_.fetch_sub(1) == 1 && awaited_.load() != 0) futex_wake_all(&inside_);
      waiting_.fetch_add(1);
      const bool opened = wait_open(deadline);
      waiting_.fetch_sub(1);
      inside_.fetch_add(1);
      if (closed_.load() == kOpen) return true;
      if (!opened) return false;
    }
  }

  /// Does nothing without an `enter` before: the door was installed in between.
  void leave(uint8_t* depth) {
    if (*depth == 0 || --*depth != 0) return;
    if (inside_.fetch_sub(1) == 1 && awaited_.load() != 0) futex_wake_all(&inside_);
  }

  /// Does nothing where the gate is held.
  void shut() {
    uint32_t closed = closed_.load();
    while (closed < kShut && !closed_.compare_exchange_strong(closed, kShut)) {
    }
  }

  /// From shut to lent. Does nothing where another fork has opened the gate since, or holds it.
  void lend() {
    uint32_t closed = kShut;
    if (closed_.compare_exchange_strong(closed, kLent) && waiting_.load() != 0) {
      futex_wake_all(&closed_);
    }
  }

  /// From lent to open. Does nothing where the gate is closed otherwise.
  void take_back() {
    uint32_t closed = kLent;
    if (closed_.compare_exchange_strong(closed, kOpen) && waiting_.load() != 0) {
      futex_wake_all(&closed_);
    }
  }

  void hold() { closed_.store(kHeld); }
  bool held() const { return closed_.load() == kHeld; }

  void open() {
    if (closed_.exchange(kOpen) != kOpen && waiting_.load() != 0) futex_wake_all(&closed_);
  }

  bool closed() const { return closed_.load(std::memory_order_relaxed) != kOpen; }

  /// Waits until nobody is inside. False if somebody was for `patience_ns`. Meanwhile the gate may
  /// have been opened by another fork, or by a fork in a signal handler of this thread.
  bool wait_empty(int64_t patience_ns) {
    if (inside_.load() == 0) return true;
    awaited_.fetch_add(1);
    const bool empty = wait_empty_awaited(monotonic_ns() + patience_ns);
    awaited_.fetch_sub(1);
    return empty;
  }

  /// In a child: only the calling thread can be inside. `own_depth` says whether it is.
  void reset(uint8_t own_depth) {
    inside_.store(own_depth != 0 ? 1 : 0, std::memory_order_relaxed);
    waiting_.store(0, std::memory_order_relaxed);
    awaited_.store(0, std::memory_order_relaxed);
    closed_.store(kOpen, std::memory_order_relaxed);
  }

 private:
  enum : uint32_t { kOpen, kLent, kShut, kHeld };

  bool wait_empty_awaited(int64_t deadline) {
    for (;;) {
      const uint32_t inside = inside_.load();
      if (inside == 0) return true;
      if (monotonic_ns() >= deadline) return false;
      futex_wait_until(&inside_, inside, deadline);
    }
  }

  // False if the gate was still held at the deadline.
  bool wait_open(int64_t deadline) {
    int64_t lent_deadline = 0;
    for (;;) {
      uint32_t closed = closed_.load();
      if (closed == kOpen) return true;
      const int64_t now = monotonic_ns();
      if (closed != kLent) {
        if (now < deadline) {
          futex_wait_until(&closed_, closed, deadline);
        } else if (closed == kHeld) {
          return false;
        } else if (closed_.compare_exchange_strong(closed, kOpen)) {
          // A fork waits half as long: it has left by a longjmp out of a signal handler.
          if (waiting_.load() > 1) futex_wake_all(&closed_);
          return true;
        }
        continue;
      }
      if (lent_deadline == 0) lent_deadline = now + kLentPatienceNs;
      if (now < lent_deadline) {
        futex_wait_until(&closed_, kLent, lent_deadline);
      } else if (closed_.compare_exchange_strong(closed, kOpen)) {
        if (waiting_.load() > 1) futex_wake_all(&closed_);
        return true;
      }
    }
  }

  Atomic<uint32_t> inside_{0};
  Atomic<uint32_t> closed_{kOpen};
  Atomic<uint32_t> waiting_{0};  // threads outside
  Atomic<uint32_t> awaited_{0};  // forks that wait for those inside
};

}  // namespace forksafe
