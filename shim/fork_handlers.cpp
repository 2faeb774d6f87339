// SPDX-License-Identifier: Apache-2.0
// glibc runs prepare handlers newest first, parent and child handlers oldest first.
//
// The head is registered before anybody else. In prepare it closes what is held for microseconds,
// when all others have taken their locks. In the child it resets the runtimes before any other
// handler may call them.
//
// A tail is registered behind every foreign registration, so that the newest handlers are ours
// too: in prepare what needs malloc or the dynamic linker, and what waits for calls that do (an
// allocator preloaded beside us locks itself in its own handler, and so does LLVM's OpenMP); in the
// child what may allocate. Only the newest tail's prepare and child do it: as many children run as
// prepares, which are counted.
#include "fork_handlers.h"

#include <sys/mman.h>

#include "fork_tree.h"
#include "module.h"
#include "runtime.h"

namespace forksafe {
namespace {

// How many tails have prepared in the fork under way, for the child: it finds fork_page wiped. As
// good as always the same number, so that parents don't write to it.
uint32_t tails_to_come = 0;

// The handlers of one fork may be entered at the head or, before it, at the newest tail.
void begin() {
  if (this_thread_forks()) return;
  const KeepErrno keep;
  fork_page.fork_lock.lock();  // two threads may fork at once
  fork_page.forker.store(&thread_state, std::memory_order_relaxed);
  fork_page.tails = 0;
  prepare_fork_tree();
  look_at_loaded_objects();
  run_step(&Runtime::prepare_first);
}

void tail_prepare() {
  begin();
  ++fork_page.tails;
}

void head_prepare() {
  begin();
  const KeepErrno keep;
  if (tails_to_come != fork_page.tails) tails_to_come = fork_page.tails;
  fork_page.adoption_lock.lock();
  run_step(&Runtime::prepare_last);
}

void head_parent() {
  const KeepErrno keep;
  run_step(&Runtime::parent);
  fork_page.forker.store(nullptr, std::memory_order_relaxed);
  fork_page.adoption_lock.unlock();
  fork_page.fork_lock.unlock();
}

void finish_child() {
  const KeepErrno keep;
  run_step(&Runtime::child_last);
}

void head_child() {
  const KeepErrno keep;
  fork_page.adoption_lock.reset();
  fork_page.fork_lock.reset();
  fork_page.forker.store(nullptr, std::memory_order_relaxed);
  enter_fork_tree();
  run_step(&Runtime::child_first);
  if (tails_to_come == 0) finish_child();
}

void tail_child() {
  if (--tails_to_come == 0) finish_child();
}

char handle;  // what glibc takes for our object: we are never unloaded

}  // namespace

int register_head(RegisterAtfork register_atfork) {
  // May fail before Linux 4.14; then the page is copied like any other.
  const KeepErrno keep;
  madvise(&fork_page, sizeof fork_page, MADV_WIPEONFORK);
  return register_atfork(head_prepare, head_parent, head_child, &handle);
}

void register_tail(RegisterAtfork register_atfork) {
  register_atfork(tail_prepare, nullptr, tail_child, &handle);
}

}  // namespace forksafe
