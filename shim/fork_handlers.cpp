// SPDX-License-Identifier: Apache-2.0
#include "fork_handlers.h"

#include "doors/module.h"
#include "elf/loaded_objects.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"
#include "signals.h"

namespace forksafe {
namespace {

std::atomic<bool> has_child_handlers{false};

// One fork at a time rests the gates before other libraries' handlers run. A prepare handler of
// another library may wait for a lock that the next forking thread holds; a thread may leave its
// fork by a longjmp or a cancellation in a handler.
void take_rest() {
  Lease::Patience patience = {Gate::kLentPatienceNs, wait_ns() + Gate::kLentPatienceNs};
  while (!fork_page.rest.try_take(this_thread(), &patience)) fork_page.rest.wait(patience);
}

// One fork at a time holds the gates. Signals are blocked when it returns; it returns the mask from
// before. While the thread waits, they are not: a collector may stop all threads by a signal, and
// with them the one that has the lease.
uint64_t take_hold() {
  Lease::Patience patience = {newcomer_patience_ns()};
  for (;;) {
    const uint64_t mask = block_signals();
    if (try_take_hold(&patience)) return mask;
    restore_signals(mask);
    fork_page.hold.wait(patience);
  }
}

// ---- the head ----

// In a program without BLAS and OpenMP there is nothing to do, so there is nothing to wait for.
// What was adopted is read from lists that have an order of their own.
void head_prepare() {
  if (!anything_adopted.load(std::memory_order_relaxed)) {
    thread_state.modules = 0;
    return;
  }
  const KeepErrno keep;
  if (thread_state.at_head) {  // a signal handler forks within this thread's fork
    ++thread_state.forks_within;
    return;
  }
  const uint64_t mask = take_hold();
  thread_state.at_head = true;
  thread_state.revoked_holds = revoked_holds.load();
  thread_state.modules = static_cast<uint8_t>(module_count.load());
  run_step(&Runtime::prepare_last);
  thread_state.outlived = 0;
  fork_page.hold.go_away(this_thread());
  restore_signals(mask);
}

void head_parent() {
  if (!thread_state.at_head) return;
  if (thread_state.forks_within != 0) {
    --thread_state.forks_within;
    return;
  }
  const KeepErrno keep;
  const uint64_t mask = block_signals();
  if (fork_page.hold.come_back(this_thread())) {
    run_step(&Runtime::parent);
    fork_page.hold.give_back(this_thread());
  }
  thread_state.at_head = false;
  fork_page.rest.give_back(this_thread());
  restore_signals(mask);
}

void head_child() {
  const KeepErrno keep;
  const bool prepared = thread_state.at_head;
  const bool resets = anything_adopted.load(std::memory_order_relaxed);
  const uint64_t mask = resets ? block_signals() : kNotBlocked;
  distrust_linker();
  fork_page.hold.reset();
  fork_page.rest.reset();
  enter_fork_tree();
  set_child_torn(prepared && thread_state.revoked_holds != revoked_holds.load());
  run_step(&Runtime::child_first);
  ++thread_state.generation;
  if (thread_state.in_fork) {
    thread_state.in_new_child = true;
  } else if (!has_child_handlers.load()) {
    run_step(&Runtime::child_last);
  }
  thread_state.at_head = false;
  thread_state.forks_within = 0;
  restore_signals(mask);
}

char handle;  // what glibc takes for our object: we are never unloaded

}  // namespace

int register_head(RegisterAtfork register_atfork) {
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
  if (rests) fork_page.rest.go_away(this_thread());
  return outer;
}

void after_fork(const OuterFork& outer) {
  const KeepErrno keep;
  thread_state.in_fork = outer.in_fork;
  // Where glibc's fork was not reached: another library's fork() may fail by itself.
  if (this_thread_rests()) {
    take_gates_back();
    fork_page.rest.give_back(this_thread());
  }
  if (thread_state.generation == outer.generation || !thread_state.in_new_child) return;
  thread_state.in_new_child = false;
  run_step(&Runtime::child_last);
}

}  // namespace forksafe
