// SPDX-License-Identifier: Apache-2.0
// A child that spins in code of no known runtime, and waits there for a thread that exists only in
// the parent: inside a parallel region, as Eigen does, or in a library with threads of its own.
//
// That is a guess, so it asks for much: no other thread of the child runs, no signal and no other
// process can end the wait (no memory is shared with one), and for a second nothing changes in the
// thread, neither its registers nor its part of the stack. A loop that computes changes some of
// that.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"
#include "process/stacks.h"
#include "verdicts/thread_runtimes.h"

namespace forksafe::cli {

struct LoneSpin {
  pid_t tid = 0;
  const Object* object = nullptr;  ///< in which it spins
  std::string function;            ///< of that object; empty if no symbol names it
  /// The parallel region around it, and the function that began that: "GOMP_parallel". Null and
  /// empty if there is none.
  const ThreadRuntime* runtime = nullptr;
  std::string region;
};

/// A thread of a forked child that may spin so: the only one of the child that does not sleep. None
/// if the child handles signals or shares memory with other processes, or is in a core.
std::optional<LoneSpin> find_lone_thread(const Process& process, const Objects& objects,
                                         const std::vector<ThreadStack>& stacks,
                                         const std::vector<ThreadRuntime>& runtimes);

/// Such a thread, and its process.
struct LoneSuspect {
  const Process* process;
  const Objects* objects;
  const std::vector<ThreadRuntime>* runtimes;
  LoneSpin spin;
};

/// Tells of each thread whether it spins. All are watched at the same time, for a second or more.
std::vector<bool> spin_alone(const std::vector<LoneSuspect>& suspects);

}  // namespace forksafe::cli
