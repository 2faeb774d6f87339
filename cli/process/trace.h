// SPDX-License-Identifier: Apache-2.0
// Starts a command, traces it, and stops its processes to look at them: when they fork, and before
// they end.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace forksafe::cli {

enum class Moment {
  kFork,     ///< in fork(); not for vfork or a new thread
  kExit,     ///< before the end: all memory is still there
  kTimeout,  ///< the time is over; for the first process of the command, wherever it is
};

/// How the trace ended.
struct Traced {
  bool cut_short = false;  ///< `look` returned false, or the time was over
  int status = 0;          ///< the command's wait status (wait(2)), if it ended by itself
};

/// Starts `command`, with its standard output redirected to our standard error. Calls `look` at
/// each Moment of each of its processes, which is stopped meanwhile.
///
/// When `look` returns false, and after `timeout_seconds` (0: never), the command and all its
/// processes are killed. They are also killed when this process ends. A process that the kernel
/// does not let end is waited for at most 5 seconds, and reported on standard error. Without a
/// timeout, the wait for the command ends when the command ends.
///
/// SIGINT and SIGQUIT from the terminal are left to the command. Throws Error if the command can't
/// be started (126, 127) or traced.
Traced trace(const std::vector<std::string>& command, double timeout_seconds,
             const std::function<bool(pid_t pid, Moment moment)>& look);

}  // namespace forksafe::cli
