// SPDX-License-Identifier: Apache-2.0
// forksafe --watch SECONDS COMMAND: tells on standard error which processes of the command are
// stuck, from outside.
//
// A thread that has neither gone to sleep nor woken up for SECONDS may be stuck, if it waits for
// another thread of its process, or never slept. That is read from /proc, which does not disturb
// the process. Then `diagnose` looks at the process: it stops each thread while it reads the stack.
// If it is not stuck, the next look comes when the same wait is twice as old.
#pragma once

#include <string>
#include <vector>

namespace forksafe::cli {

struct WatchOptions {
  double seconds = 0;
  bool abort = false;  ///< end who is stuck with SIGABRT
  /// Where to tell who forks beside threads that forksafe does not know: "stderr" or a path. Empty:
  /// nowhere.
  std::string log;
};

/// Runs `command` as a child of this process and watches it and all its descendants. Returns as
/// run_as_child(). Throws Error (status 2) if this process may not look at its children.
int run_watched(const std::vector<std::string>& command,
                const std::vector<std::string>& environment, const WatchOptions& options);

}  // namespace forksafe::cli
