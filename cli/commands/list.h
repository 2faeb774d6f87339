// SPDX-License-Identifier: Apache-2.0
// forksafe list: lists the runtimes that a process has loaded.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace forksafe::cli {

/// The target is a process, a command to start, or all processes. Exactly one of `pid`, `command`
/// and `all` is given.
struct ListOptions {
  bool json = false;
  bool all = false;  ///< each process of this user; for root, of all users
  std::optional<pid_t> pid;
  std::vector<std::string> command;
};

/// Prints the list on standard output. Returns 0; throws Error if the process can't be read.
int list(const ListOptions& options);

}  // namespace forksafe::cli
