// SPDX-License-Identifier: Apache-2.0
// Runs a command as a child of this process, which stands in for it: signals and stops that reach
// this process are passed on to the command, and this process ends as the command does.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace forksafe::cli {

/// Runs `command` with `environment` until it ends, and returns its exit status. If a signal ends
/// it, the same signal ends this process.
///
/// Calls `may_start(pid)` before the command is executed; it may throw. Calls `look(pid)` every
/// `seconds` while the command runs, and at once again if that returns true: a signal waits for the
/// end of a look. A look that throws is over. Throws Error (126, 127) if the command can't be
/// executed.
///
/// - The command is in our process group, and so has the terminal. What the terminal sends to the
///   group reaches the command by itself. A signal that a process sends to us is passed on.
/// - If the command stops and a shell waits for that, this process stops, and the shell sees it.
/// - If this process is process 1 of a container, it takes the ends of orphans.
/// - If this process is killed, the command is killed.
/// - This process keeps no file open but standard error: the reader of a pipe that the command
///   closes gets its end.
int run_as_child(const std::vector<std::string>& command,
                 const std::vector<std::string>& environment, double seconds,
                 const std::function<void(pid_t pid)>& may_start,
                 const std::function<bool(pid_t pid)>& look);

}  // namespace forksafe::cli
