// SPDX-License-Identifier: Apache-2.0
// forksafe list: lists the runtimes that a process has loaded.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace forksafe::cli {

/// The target is a process or a command to start. Exactly one of `pid` and `command` is given.
struct ListOptions {
  bool json = false;
  std::optional<pid_t> pid;
  std::vector<std::string> command;
};

/// Prints the list on standard output. Returns 0; throws Error if the process can't be read.
int list(const ListOptions& options);

}  // namespace forksafe::cli
