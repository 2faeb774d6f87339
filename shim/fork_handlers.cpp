// SPDX-License-Identifier: Apache-2.0
#include "fork_handlers.h"

#include <signal.h>
#include <sys/mman.h>

#include "doors/module.h"
#include "elf/loaded_objects.h"
#include "options.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

std::atomic<bool> has_child_handlers{false};

// ---- one fork at a time rests the gates before other libraries' handlers ----

// How long a fork sleeps at most before it looks again what the thread does that rests the gates.
constexpr int64_t kLookNs = 10 * 1000000;

// The right goes from thread to thread, and is taken from a thread that keeps it too long: a
// prepare handler of another library may wait for a lock that the next forking thread holds, and a
// thread may leave its fork by a longjmp or a cancellation in a handler.
void take_rest() {
  const auto self = reinterpret_cast<uintptr_t>(&thread_state);
  const int64_t give_up = wait_deadline() + Gate::kLentPatienceNs;
  int64_t patience_ends = 0;
  for (;;) {
    const uint32_t turn = fork_page.rest_turn.load();
    uintptr_t rester = fork_page.rester.load();
    // Its own where a fork lies in a handler, or comes after a longjmp out of one.
    if (rester == 0 || (rester & ~ForkPage::kLent) == self) {
      if (fork_page.rester.compare_exchange_strong(rester, self)) return;
      continue;
    }
    const int64_t now = monotonic_ns();
    if (patience_ends == 0 || (rester & ForkPage::kLent) == 0) {
      patience_ends = now + Gate::kLentPatienceNs;
    }
    if (now >= patience_ends || now >= give_up) {
      if (fork_page.rester.compare_exchange_strong(rester, self)) return;
      continue;
    }
    fork_page.rest_waiters.fetch_add(1);
    futex_wait_until(&fork_page.rest_turn, turn, now + kLookNs);
    fork_page.rest_waiters.fetch_sub(1);
  }
}

// Does nothing where a fork in a signal handler has given the right back since.
void lend_rest() {
  auto self = reinterpret_cast<uintptr_t>(&thread_state);
  fork_page.rester.compare_exchange_strong(self, self | ForkPage::kLent);
}

void give_rest_back() {
  uintptr_t rester = fork_page.rester.load(std::memory_order_relaxed);
  if ((rester & ~ForkPage::kLent) != reinterpret_cast<uintptr_t>(&thread_state)) return;
  if (!fork_page.rester.compare_exchange_strong(rester, 0)) return;
  fork_page.rest_turn.fetch_add(1);
  if (fork_page.rest_waiters.load() != 0) futex_wake_all(&fork_page.rest_turn);
}

// ---- signals ----

// What the kernel takes as a signal set, one bit for each of 64 signals.
constexpr uint64_t bit_of(int signal) { return uint64_t{1} << (signal - 1); }

// Faults are the program's to handle. The second is glibc's own, by which one thread's setuid
// reaches all others and waits for them (SIGSETXID, __SIGRTMIN + 1).
constexpr uint64_t kNeverBlocked = bit_of(SIGSEGV) | bit_of(SIGBUS) | bit_of(SIGILL) |
                                   bit_of(SIGFPE) | bit_of(SIGTRAP) | bit_of(SIGSYS) | bit_of(33);

void block_signals() {
  uint64_t old = 0;
  set_signal_mask(~kNeverBlocked, &old);
  thread_state.signals = old;
}

void restore_signals() { set_signal_mask(thread_state.signals, nullptr); }

// ---- the head ----

// In a program without BLAS and OpenMP there is nothing to do, so there is nothing to wait for.
void head_prepare() {
  if (!anything_adopted.load(std::memory_order_relaxed)) return;
  const KeepErrno keep;
  block_signals();
  fork_page.fork_lock.lock();  // two threads may fork at once
  thread_state.at_head = true;
  forget_passes();
  run_step(&Runtime::prepare_last);
  thread_state.outlived = 0;
}

void head_parent() {
  if (!thread_state.at_head) return;
  const KeepErrno keep;
  run_step(&Runtime::parent);
  thread_state.at_head = false;
  fork_page.fork_lock.unlock();
  give_rest_back();
  restore_signals();
}

void head_child() {
  const KeepErrno keep;
  distrust_linker();
  fork_page.fork_lock.reset();
  fork_page.rester.store(0, std::memory_order_relaxed);
  fork_page.rest_waiters.store(0, std::memory_order_relaxed);
  enter_fork_tree();
  run_step(&Runtime::child_first);
  ++thread_state.generation;
  if (thread_state.in_fork) {
    thread_state.in_new_child = true;
  } else if (!has_child_handlers.load()) {
    run_step(&Runtime::child_last);
  }
  if (!thread_state.at_head) return;
  thread_state.at_head = false;
  restore_signals();
}

char handle;  // what glibc takes for our object: we are never unloaded

}  // namespace

int register_head(RegisterAtfork register_atfork) {
  // May fail before Linux 4.14; then the page is copied like any other. With larger pages other
  // variables would be wiped too.
  const KeepErrno keep;
  if (sysconf(_SC_PAGESIZE) <= static_cast<long>(sizeof fork_page)) {
    madvise(&fork_page, sizeof fork_page, MADV_WIPEONFORK);
  }
  return register_atfork(head_prepare, head_parent, head_child, &handle);
}

void note_child_handler() { has_child_handlers.store(true); }

OuterFork before_fork() {
  const KeepErrno keep;
  const OuterFork outer = {thread_state.in_fork, thread_state.generation};
  thread_state.in_fork = true;
  thread_state.outlived = 0;
  const bool rests = any_module_rests_early();
  if (rests) take_rest();
  run_step(&Runtime::prepare_first);
  if (rests) lend_rest();
  return outer;
}

void after_fork(const OuterFork& outer) {
  const KeepErrno keep;
  thread_state.in_fork = outer.in_fork;
  // Where glibc's fork was not reached: another library's fork() may fail by itself.
  if (this_thread_rests()) {
    take_gates_back();
    give_rest_back();
  }
  if (thread_state.generation == outer.generation || !thread_state.in_new_child) return;
  thread_state.in_new_child = false;
  run_step(&Runtime::child_last);
}

}  // namespace forksafe
