// SPDX-License-Identifier: Apache-2.0
// A lock that can be taken away from its holder.
//
// A fork must keep other forks out while code runs that is not ours: other libraries' handlers,
// glibc's fork, signal handlers. Such code may wait for the very thread that waits for the lock, or
// may never come back (longjmp, a cancelled thread). So nobody waits for it without a bound: past
// the bound the newcomer takes the lock, and the old holder learns that when it comes back.
#pragma once

#include "futex.h"

namespace forksafe {

class Lease {
 public:
  /// How long a newcomer waits for one holder, and what it has seen of that holder so far.
  struct Patience {
    int64_t away_ns;              ///< while the holder runs foreign code
    int64_t busy_ns = INT64_MAX;  ///< while the holder runs our own code
    bool revoked = false;         ///< the lease was taken away from another thread

    uint32_t turn = 0;
    int64_t first_seen = 0;  ///< 0: not yet
    int64_t last_busy = 0;
  };

  /// Takes the lease where it is free, where `self` has it already, or where patience has ended.
  /// False where another thread keeps it. `self` is the address of a thread's ThreadState.
  bool try_take(uintptr_t self, Patience* patience) {
    const uint32_t turn = turn_.load();
    if (turn != patience->turn) patience->first_seen = 0;  // another holder than at the last look
    patience->turn = turn;
    uintptr_t holder = holder_.load();
    bool others;
    do {
      others = holder != 0 && (holder & ~kAway) != self;
      if (others && !ends(patience, (holder & kAway) != 0)) return false;
    } while (!holder_.compare_exchange_strong(holder, self));
    patience->revoked = others;
    if (others) turn_.fetch_add(1);
    return true;
  }

  /// After try_take() has failed: sleeps until the holder gives the lease back, 10 ms at most.
  void wait(const Patience& patience) {
    constexpr int64_t kLookNs = 10 * 1000000;
    waiting_.fetch_add(1);
    futex_wait_until(&turn_, patience.turn, monotonic_ns() + kLookNs);
    waiting_.fetch_sub(1);
  }

  /// The holder is about to run foreign code. Does nothing for a thread that does not have the
  /// lease.
  void go_away(uintptr_t self) { holder_.compare_exchange_strong(self, self | kAway); }

  /// The holder is back. False where it has lost the lease meanwhile.
  bool come_back(uintptr_t self) {
    uintptr_t away = self | kAway;
    return holder_.compare_exchange_strong(away, self) || away == self;
  }

  bool held_by(uintptr_t self) const {
    return (holder_.load(std::memory_order_relaxed) & ~kAway) == self;
  }

  /// Does nothing for a thread that does not have the lease.
  void give_back(uintptr_t self) {
    uintptr_t holder = holder_.load(std::memory_order_relaxed);
    if ((holder & ~kAway) != self || !holder_.compare_exchange_strong(holder, 0)) return;
    turn_.fetch_add(1);
    if (waiting_.load() != 0) futex_wake_all(&turn_);
  }

  /// In a child: nobody has it, and nobody waits. Usually the kernel has wiped the page. Skip the
  /// write then: it is a page fault, and valgrind's helgrind takes it for a race.
  void reset() {
    if (holder_.load(std::memory_order_relaxed) != 0) holder_.store(0, std::memory_order_relaxed);
    if (waiting_.load(std::memory_order_relaxed) != 0) waiting_.store(0, std::memory_order_relaxed);
  }

  bool is_free() const { return holder_.load() == 0; }

 private:
  static constexpr uintptr_t kAway = 1;  // beside the address of a ThreadState

  static bool ends(Patience* patience, bool away) {
    const int64_t now = monotonic_ns();
    if (patience->first_seen == 0) patience->first_seen = patience->last_busy = now;
    if (!away) patience->last_busy = now;
    return away ? now - patience->last_busy >= patience->away_ns
                : now - patience->first_seen >= patience->busy_ns;
  }

  Atomic<uintptr_t> holder_{0};
  Atomic<uint32_t> turn_{0};  // moves when a holder has given the lease back, or has lost it
  Atomic<uint32_t> waiting_{0};
};

}  // namespace forksafe
