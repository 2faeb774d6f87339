// SPDX-License-Identifier: Apache-2.0
// The stacks of another process's threads, seen from outside with libunwind-ptrace.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace forksafe_test {

struct Frame {
  std::string function;  ///< empty where no symbol names it
  std::string object;    ///< the file name of the object, without its folder
};

struct ThreadStack {
  pid_t tid;
  std::vector<Frame> frames;  ///< innermost first
};

/// Stops each thread of `pid` in turn, walks its stack and lets it go on. Empty when the process
/// is gone or may not be traced.
std::vector<ThreadStack> read_stacks(pid_t pid);

/// The processes below `pid`, and `pid` itself, parents first.
std::vector<pid_t> process_tree(pid_t pid);

/// "GOMP_parallel (libgomp.so.1)": where the main thread of `pid`, or else another one that called
/// it, waits inside a BLAS or OpenMP runtime; empty where none does. A pool's own worker does not
/// count: a worker that waits for work is as it should be.
std::string where_stuck(pid_t pid);

/// The same over a whole tree: one line for each process that is stuck, "child: …" or "parent: …".
std::vector<std::string> where_tree_stuck(pid_t pid);

}  // namespace forksafe_test
