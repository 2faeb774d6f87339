// SPDX-License-Identifier: Apache-2.0
// forksafe COMMAND: becomes the command, with the library preloaded.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace forksafe::cli {

struct RunOptions {
  // As the user typed them; what is not given is left to the environment.
  std::optional<std::string> child_threads, wait_ms, pool, log;
  bool off = false;
  bool dry_run = false;
  bool force = false;
  std::vector<std::string> command;  ///< not empty
};

/// What the options set, each as NAME=value, LD_PRELOAD first. A relative path of the log is made
/// absolute, as the command may change its folder. Throws Error (status 2) where the library would
/// not accept a value.
std::vector<std::string> environment_changes(const RunOptions& options, const std::string& library);

/// This process's environment with `changes` made.
std::vector<std::string> changed_environment(const std::vector<std::string>& changes);

/// Checks the library and the command, then becomes the command: the same process, which inherits
/// all that this one was started with. Returns only after a dry run, 0. Throws Error: status 2
/// where a check failed, 126 and 127 as a shell.
int run(const RunOptions& options);

}  // namespace forksafe::cli
