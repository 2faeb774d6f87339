// SPDX-License-Identifier: Apache-2.0
// Runs a command as its tracer, and stops its processes for a look: before they end, and when they
// fork.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace forksafe::cli {

enum class Moment {
  kFork,     ///< in fork(), not vfork or a new thread
  kExit,     ///< its memory is all there still
  kTimeout,  ///< the time is over: the command's first process, wherever it is
};

/// What the command came to.
struct Traced {
  bool cut_short = false;  ///< `look` said so, or the time was over
  int status = 0;          ///< its wait status (wait(2)) when it ended by itself
};

/// Starts `command`, its standard output going to our standard error, and calls `look` at each
/// moment of each of its processes, which is stopped then. Where `look` answers false, and after
/// `timeout_seconds` (0: never), the command and all its processes are killed. They are too when
/// this process ends; one that the kernel does not let end is waited for no longer than 5 seconds,
/// and told of on standard error. Without a timeout the wait for the command itself has no other
/// bound than its end. SIGINT and SIGQUIT from the terminal are the command's alone. Throws Error
/// when it can't be started (126, 127) or traced.
Traced trace(const std::vector<std::string>& command, double timeout_seconds,
             const std::function<bool(pid_t pid, Moment moment)>& look);

}  // namespace forksafe::cli
