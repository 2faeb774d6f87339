// SPDX-License-Identifier: Apache-2.0
// forksafe COMMAND: executes the command with the library preloaded.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace forksafe::cli {

struct RunOptions {
  // As the user typed them. An option that is not given leaves its variable unchanged.
  std::optional<std::string> child_threads, wait_ms, pool, log;
  bool off = false;
  bool dry_run = false;
  bool force = false;
  std::optional<double> watch;       ///< tell who has been stuck for so many seconds
  bool watch_abort = false;          ///< and end them
  std::vector<std::string> command;  ///< not empty
};

/// The variables that the options set, each as NAME=value, LD_PRELOAD first. A relative path of the
/// log is made absolute, because the command may change its folder. Throws Error (status 2) if the
/// library would not accept a value.
std::vector<std::string> environment_changes(const RunOptions& options, const std::string& library);

/// The environment of this process with `changes` applied.
std::vector<std::string> changed_environment(const std::vector<std::string>& changes);

/// Prints the path of the library, which was checked. Returns 0. Throws Error: status 2 if the
/// library can't be preloaded.
int print_library();

/// Checks the library and the command, then executes the command in this process. Returns only
/// after a dry run, with 0, or with `watch`, with the status of the command. Throws Error: status 2
/// if a check failed, 126 or 127 as a shell does.
int run(const RunOptions& options);

}  // namespace forksafe::cli
