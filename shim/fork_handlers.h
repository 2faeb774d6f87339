// SPDX-License-Identifier: Apache-2.0
// What the library does around a fork, in order, and who runs in between:
//
//   before_fork()            in our fork(), before glibc's: waits for computations, may need malloc
//     other libraries' prepare handlers
//       the head's prepare   takes microseconds: the gates close until the fork is made
//         glibc's own locks, the kernel's fork
//       the head's parent    opens the gates          the head's child   resets the runtimes
//     other libraries' parent handlers              other libraries' child handlers
//   after_fork()                                  after_fork()   may allocate
//
// The head is the oldest registration in glibc's list: its prepare runs last, its parent and child
// run first. A fork that reaches glibc without our fork() (found by dlsym in libc itself, or bound
// by RTLD_DEEPBIND) runs the head's handlers alone.
//
// Signals are blocked in the head's own steps only. Nothing here calls the dynamic linker, and
// nothing waits without a bound: docs/locks.md says why no cycle exists.
#pragma once

#include <cstdint>

namespace forksafe {

using RegisterAtfork = int (*)(void (*prepare)(), void (*parent)(), void (*child)(), void* dso);

/// Registers the head. To be called before anybody else registers.
int register_head(RegisterAtfork register_atfork);

/// To be called when another library registers a child handler. In a child, malloc may be locked
/// until that handler has run.
void note_child_handler();

/// What before_fork() hands to after_fork(). One fork may lie within another, in a handler.
struct OuterFork {
  bool in_fork;         ///< there is one
  uint32_t generation;  ///< how many forks this thread has come through as the child
};

/// Around glibc's fork. Any thread, any signal handler. Both keep errno.
OuterFork before_fork();
void after_fork(const OuterFork& outer);

}  // namespace forksafe
