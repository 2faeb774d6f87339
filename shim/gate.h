// SPDX-License-Identifier: Apache-2.0
// A gate counts the threads that are inside a part of a runtime that must not be torn by a fork,
// and can be closed: who is inside goes on to the end, who comes waits outside.
//
// prepare closes the gates and waits until nobody is inside; parent opens them; child starts over.
// That takes none of the runtime's own locks, so a fork writes to none of its pages, no order of
// locks must be known, and threads that contend for the runtime can't starve the fork.
#pragma once

#include "futex.h"

namespace forksafe {

class Gate {
 public:
  /// `depth` counts this thread's nested entries; only the outermost one can wait. It waits at
  /// most `patience_ns`: a closed gate that is not opened in that time is passed (another
  /// library's prepare handler may wait for a lock that this thread holds).
  void enter(uint8_t* depth, int64_t patience_ns) {
    if ((*depth)++ != 0) return;
    inside_.fetch_add(1);
    if (closed_.load() != 0) wait_outside(patience_ns);
  }

  /// A leave without an enter (the door was installed in between) does nothing.
  void leave(uint8_t* depth) {
    if (*depth == 0 || --*depth != 0) return;
    if (inside_.fetch_sub(1) == 1 && closed_.load() != 0) futex_wake_all(&inside_);
  }

  /// From here on nobody comes in.
  void close() { closed_.store(1); }

  bool closed() const { return closed_.load(std::memory_order_relaxed) != 0; }

  /// Waits until nobody is inside. False when `deadline` (monotonic_ns) passed first.
  bool wait_empty(int64_t deadline) {
    for (;;) {
      const uint32_t inside = inside_.load();
      if (inside == 0) return true;
      if (monotonic_ns() >= deadline) return false;
      futex_wait_until(&inside_, inside, deadline);
    }
  }

  void open() {
    closed_.store(0);
    if (waiting_.load() != 0) futex_wake_all(&closed_);
  }

  /// In a child: of all threads inside, the calling one is left, if it was inside at all.
  void reset(uint8_t own_depth) {
    inside_.store(own_depth != 0 ? 1 : 0, std::memory_order_relaxed);
    waiting_.store(0, std::memory_order_relaxed);
    closed_.store(0, std::memory_order_relaxed);
  }

 private:
  void wait_outside(int64_t patience_ns) {
    const int64_t deadline = monotonic_ns() + patience_ns;
    do {
      if (inside_.fetch_sub(1) == 1) futex_wake_all(&inside_);
      waiting_.fetch_add(1);
      while (closed_.load() != 0 && monotonic_ns() < deadline) {
        futex_wait_until(&closed_, 1, deadline);
      }
      waiting_.fetch_sub(1);
      inside_.fetch_add(1);
    } while (closed_.load() != 0 && monotonic_ns() < deadline);
  }

  std::atomic<uint32_t> inside_{0};
  std::atomic<uint32_t> closed_{0};
  std::atomic<uint32_t> waiting_{0};
};

}  // namespace forksafe
