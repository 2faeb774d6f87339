// SPDX-License-Identifier: Apache-2.0
// A child that spins inside a parallel region, in code of the program or of a library such as
// Eigen, and waits there for a team mate that exists only in the parent.
//
// That is a guess, so it asks for much: no other thread of the child runs, no signal and no other
// process can end the wait, and for a second nothing changes in the thread, neither its registers
// nor its part of the stack. A loop that computes changes some of that.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"
#include "process/stacks.h"
#include "verdicts/thread_runtimes.h"

namespace forksafe::cli {

struct LostTeam {
  pid_t tid = 0;
  const ThreadRuntime* runtime = nullptr;  ///< of the region
  std::string region;                      ///< the function that began it: "GOMP_parallel"
  const Object* object = nullptr;          ///< in which it spins
  std::string function;                    ///< of that object; empty if no symbol names it
};

/// A thread of a forked child that is in a region alone, in code of no runtime, and does not sleep.
std::optional<LostTeam> find_lone_region(const Process& process,
                                         const std::vector<ThreadStack>& stacks,
                                         const std::vector<ThreadRuntime>& runtimes);

/// Whether that thread waits for a team mate. Takes a second if it does.
bool spins_alone(const Process& process, const Objects& objects, const LostTeam& team,
                 const std::vector<ThreadRuntime>& runtimes);

}  // namespace forksafe::cli
