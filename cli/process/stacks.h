// SPDX-License-Identifier: Apache-2.0
// Reads the stacks of another process's threads, with libunwind-ptrace.
//
// Each thread is stopped alone, only while its stack is read, and then continues. The thread gets
// no signal from this; a signal that arrives in the meantime is delivered to it afterwards.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"

namespace forksafe::cli {

struct Frame {
  uintptr_t address = 0;           ///< the current instruction, or the return address
  uintptr_t stack = 0;             ///< its stack pointer
  const Object* object = nullptr;  ///< that contains the address; null if none does
  /// Empty if no symbol covers the address. If another object called this function, it is the name
  /// that the caller used: a function with that name has jumped to one without a name.
  std::string function;
  /// The registers that a called function leaves as they were, in the order of the architecture's
  /// ABI; zeros where forksafe does not know them.
  std::array<uintptr_t, 11> kept = {};
};

struct ThreadStack {
  pid_t tid = 0;
  std::string name;           ///< the thread's (comm)
  std::vector<Frame> frames;  ///< innermost first; empty if the thread could not be stopped
};

/// The stack of each thread, the main thread first. Throws Error if the process may not be traced.
/// A thread that does not stop within 200 ms has no frames.
std::vector<ThreadStack> read_stacks(const Process& process, const Objects& objects);

/// What a stopped thread is doing.
struct Sample {
  std::vector<Frame> frames;  ///< the innermost ones
  std::string registers;      ///< the bytes of all general registers; empty if unknown
};

/// Stops one thread again and again and gives a sample to `take`, until `take` returns false. The
/// thread is stopped while `take` runs, and runs for `pause_us` after that.
void sample_stack(const Process& process, const Objects& objects, pid_t tid, size_t max_frames,
                  unsigned pause_us, const std::function<bool(const Sample&)>& take);

}  // namespace forksafe::cli
