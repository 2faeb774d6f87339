// SPDX-License-Identifier: Apache-2.0
// forksafe check: whether fork is safe in a process as it runs now.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace forksafe::cli {

/// What to look at: a process, or a command to be started. Exactly one of the two is given.
struct CheckOptions {
  bool json = false;
  std::optional<pid_t> pid;
  std::vector<std::string> command;
  double timeout_seconds = 30;  ///< how long the command may run before the look
  bool prove = true;            ///< try forks too; false with --no-proof
};

/// Prints the verdict on standard output. Returns 0 when fork is safe, 1 when it is not; throws
/// Error (status 2) when it can't be told.
int check(const CheckOptions& options);

}  // namespace forksafe::cli
