// SPDX-License-Identifier: Apache-2.0
// forksafe list: the runtimes that a process has loaded.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace forksafe::cli {

/// What to look at: a process, or a command to be started. Exactly one of the two is given.
struct ListOptions {
  bool json = false;
  std::optional<pid_t> pid;
  std::vector<std::string> command;
};

/// Prints the list on standard output. Returns 0; throws Error when it can't be told.
int list(const ListOptions& options);

}  // namespace forksafe::cli
