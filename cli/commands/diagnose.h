// SPDX-License-Identifier: Apache-2.0
// forksafe diagnose: tells what a stuck process waits for.
#pragma once

#include <sys/types.h>

namespace forksafe::cli {

struct DiagnoseOptions {
  bool json = false;
  bool children = false;  ///< also diagnose the descendants
  pid_t pid = 0;
};

/// Prints the diagnosis on standard output. Returns 0 if no fork problem was found, 1 if one was.
/// Throws Error (status 2) if that can't be told.
int diagnose(const DiagnoseOptions& options);

}  // namespace forksafe::cli
