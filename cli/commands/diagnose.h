// SPDX-License-Identifier: Apache-2.0
// forksafe diagnose: tells what a stuck process waits for.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace forksafe::cli {

struct DiagnoseOptions {
  bool json = false;
  bool children = false;            ///< also diagnose the descendants
  pid_t pid = 0;                    ///< unless `core` is given
  std::optional<std::string> core;  ///< the path of a core
};

/// Prints the diagnosis on standard output. Returns 0 if no fork problem was found, 1 if one was.
/// Throws Error (status 2) if that can't be told.
int diagnose(const DiagnoseOptions& options);

}  // namespace forksafe::cli
