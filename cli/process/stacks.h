// SPDX-License-Identifier: Apache-2.0
// The stacks of another process's threads, with libunwind-ptrace.
//
// Each thread is stopped on its own, for as long as its walk takes, and goes on where it was: it
// gets no signal, and one that arrives meanwhile is passed on to it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"

namespace forksafe::cli {

struct Frame {
  uintptr_t address = 0;           ///< the instruction that the frame is at, or returns to
  uintptr_t stack = 0;             ///< its stack pointer
  const Object* object = nullptr;  ///< null outside of all objects
  /// Empty where no symbol covers the address. Where that is so for a function that another object
  /// called, the name that this object called: it has jumped on to one that has none.
  std::string function;
};

struct ThreadStack {
  pid_t tid = 0;
  std::string name;           ///< the thread's (comm)
  std::vector<Frame> frames;  ///< innermost first; empty where it could not be stopped
};

/// The stack of each thread, the main thread first. Throws an Error when the process may not be
/// traced. A thread that the kernel does not let stop within 200 ms has no frames.
std::vector<ThreadStack> read_stacks(const Process& process, const Objects& objects);

/// Gives the innermost frames of one thread to `take`, stopping it for each sample and letting it
/// go on, for as long as `take` answers true.
void sample_stack(const Process& process, const Objects& objects, pid_t tid, size_t max_frames,
                  const std::function<bool(const std::vector<Frame>&)>& take);

}  // namespace forksafe::cli
