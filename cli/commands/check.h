// SPDX-License-Identifier: Apache-2.0
// forksafe check: tells whether fork is safe in a process as it runs now.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace forksafe::cli {

/// The target is a process or a command to start. Exactly one of `pid` and `command` is given.
struct CheckOptions {
  bool json = false;
  std::optional<pid_t> pid;
  std::vector<std::string> command;
  double timeout_seconds = 30;  ///< how long the command may run before it is looked at
  bool prove = true;            ///< also try forks; false with --no-proof
};

/// Prints the verdict on standard output. Returns 0 if fork is safe, 1 if it is not. Throws Error
/// (status 2) if that can't be told.
int check(const CheckOptions& options);

}  // namespace forksafe::cli
