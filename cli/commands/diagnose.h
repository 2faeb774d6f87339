// SPDX-License-Identifier: Apache-2.0
// forksafe diagnose: what a stuck process waits for.
#pragma once

#include <sys/types.h>

namespace forksafe::cli {

struct DiagnoseOptions {
  bool json = false;
  bool children = false;  ///< look at the descendants too
  pid_t pid = 0;
};

/// Prints the diagnosis on standard output. Returns 0 when no fork problem was found, 1 when one
/// was; throws Error (status 2) when it can't be told.
int diagnose(const DiagnoseOptions& options);

}  // namespace forksafe::cli
