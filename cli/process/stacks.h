// SPDX-License-Identifier: Apache-2.0
// Reads the stacks of another process's threads, with libunwind-ptrace.
//
// Each thread is stopped only while its stack is read, and then continues. The thread gets no
// signal from this; a signal that arrives in the meantime is delivered to it afterwards.
//
// A thread that is ready to run stops when it gets a processor. On a busy machine that takes long,
// so all such threads are asked to stop before the first one is waited for.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"

namespace forksafe::cli {

struct Frame {
  uintptr_t address = 0;           ///< the current instruction, or the return address
  uintptr_t stack = 0;             ///< its stack pointer
  bool is_return_address = false;  ///< otherwise the thread stopped, or a signal came, at `address`
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
  /// In which it slept before it was stopped. A stop interrupts the call, and the thread needs a
  /// processor to get back into it.
  std::optional<SystemCall> system_call = {};
};

/// The stack of each thread, the main thread first. Throws NotPermitted if the process may not be
/// traced.
/// A thread that does not stop within 200 ms has no frames.
std::vector<ThreadStack> read_stacks(const Process& process, const Objects& objects);

/// The same, but again and again while the stack of a thread that was made less than 300 ms ago
/// tells nothing.
std::vector<ThreadStack> read_settled_stacks(const Process& process, const Objects& objects);

/// Whether the stack does not tell who made the thread, or what for: the thread did not stop, or it
/// has not begun (in clone(2), what is behind the C library's frame on the stack has no meaning),
/// or it runs code that was made at run time.
bool tells_nothing(const ThreadStack& stack);

/// The stacks of several processes at once. A SIGCHLD that comes meanwhile may be lost.
struct ProcessStacks {
  const Process* process;
  const Objects* objects;
  std::vector<ThreadStack> stacks;
  std::exception_ptr error;  ///< why there are none
};
void read_stacks(std::vector<ProcessStacks>* all);

/// Continues the threads that a look has asked to stop and that have stopped after its 200 ms. A
/// thread in an uninterruptible sleep (vfork) does that, or one that gets no processor. SIGCHLD
/// says when. To be called again and again by whoever goes on after a look; when a program ends,
/// the kernel continues them.
void continue_late_threads();

/// Sleeps, and continues such threads meanwhile.
void sleep_after_look(std::chrono::microseconds duration);

/// A thread to sample.
struct Sampled {
  const Process* process;
  const Objects* objects;
  pid_t tid;
};

struct Sampling {
  size_t max_frames;
  uint64_t run_ns;                     ///< the CPU time of a thread between two samples, at least
  std::chrono::microseconds pause;     ///< the time between two samples, at least
  std::chrono::milliseconds patience;  ///< for all samples
};

/// What a stopped thread is doing.
struct Sample {
  std::vector<Frame> frames;  ///< the innermost ones
  std::string registers;      ///< the bytes of all general registers; empty if unknown
};

/// Stops the threads again and again and gives samples to `take`, with the index of the thread,
/// until `take` returns false for it. The thread is stopped while `take` runs. A thread that can't
/// be stopped is sampled no more.
void sample_stacks(const std::vector<Sampled>& threads, const Sampling& sampling,
                   const std::function<bool(size_t, const Sample&)>& take);

}  // namespace forksafe::cli
