// SPDX-License-Identifier: Apache-2.0
// Threads that no known runtime has started, and waits for threads that exist only in the parent,
// of any library.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"
#include "process/stacks.h"
#include "verdicts/thread_runtimes.h"

namespace forksafe::cli {

/// Threads that one object has started.
struct OtherThreads {
  const Object* object = nullptr;  ///< null: unknown, as the stacks can't be read
  int count = 0;
  bool is_program = false;   ///< the object is the program itself
  bool start_again = false;  ///< the object makes new ones in a child
};

/// The threads that belong to no known runtime, by the object that started them, in the order of
/// their addresses. Python's threads are not counted: Python itself forgets them in a child
/// (PyOS_AfterFork_Child).
std::vector<OtherThreads> find_other_threads(const Process& process, const Objects& objects,
                                             const std::vector<ThreadStack>& stacks,
                                             const std::vector<ThreadRuntime>& runtimes);

/// "3 threads of libx.so", for a sentence.
std::string describe(const OtherThreads& threads);

/// Whether a thread waits for another thread of its process, without a timeout: on a private futex
/// (futex(2)) or in pthread_join. False also if that could not be read.
bool waits_for_thread(const ThreadStack& stack);

/// The same, or on a private futex with a timeout: only a thread of the process can end that
/// earlier.
bool waits_for_thread_or_timeout(const ThreadStack& stack);

/// Whether the process handles a signal that may be meant to end a wait. Handlers of a crash and
/// glibc's own are not, nor is that of SIGINT in Python, which always has one. A core does not
/// tell: false.
bool handles_signals(const Process& process, const Objects& objects);

/// The stacks of the parent's threads; null if the parent has ended or may not be read.
using StacksOfParent = std::function<const std::vector<ThreadStack>*()>;

/// How many threads of an object only the parent of a child has: 0 if the child has some too, or if
/// the parent can't be read.
int count_lost_threads(const Process& child, const std::vector<ThreadStack>& stacks,
                       const Object& object, const StacksOfParent& stacks_of_parent);

/// A thread that nobody can wake, unless another one runs: in a forked child, or in fork().
struct LostWait {
  pid_t tid = 0;
  const Object* object = nullptr;  ///< in which it waits
  std::string function;            ///< of that object; empty if no symbol names it
  bool in_fork = false;            ///< in a fork handler
  bool is_hidden = false;          ///< the stack does not tell whose; `object` has called fork
  bool is_python = false;          ///< at a lock of Python
  bool others_run = false;         ///< another thread of the process does not wait, and may end it
  bool handles_signals = false;    ///< a handler of a signal may be meant to end it
  int in_parent = 0;               ///< how many threads of the object the parent has; 0: unknown
};

/// Finds such a thread. In a core, a handler of a signal may be meant to wake it. `asleep` has the
/// threads that have slept since an earlier look, in which they waited too.
std::optional<LostWait> find_lost_wait(const Process& process, const Objects& objects,
                                       const std::vector<ThreadStack>& stacks,
                                       const std::vector<pid_t>& asleep,
                                       const StacksOfParent& stacks_of_parent);

/// Finds the main thread of a forked child in a wait with a timeout that nobody can end earlier: in
/// a library whose threads only the parent has, while all other threads of the child wait too. The
/// library may wait again and again, as JAX 0.10 does, which looks for signals every 0.2 s.
std::optional<LostWait> find_timed_wait(const Process& process, const Objects& objects,
                                        const std::vector<ThreadStack>& stacks,
                                        const StacksOfParent& stacks_of_parent);

/// Finds a thread of a forked child that waits for Python's global lock, if all its threads do:
/// then the lock was held at the fork, by a thread that the child does not have. Python itself
/// forks while the forking thread holds that lock. Programs that embed Python may not, as
/// uWSGI 2.0.
std::optional<LostWait> find_gil_wait(const Process& process,
                                      const std::vector<ThreadStack>& stacks);

/// Finds a thread that waits in a fork handler, whoever may wake it.
std::optional<LostWait> find_handler_wait(const std::vector<ThreadStack>& stacks,
                                          const std::vector<pid_t>& asleep);

/// Whether the thread is inside fork(2).
bool is_in_fork(const ThreadStack& stack);

}  // namespace forksafe::cli
