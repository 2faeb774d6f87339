// SPDX-License-Identifier: Apache-2.0
// What /proc tells about a process that may not be traced. Without the stacks of its threads that
// is no verdict: a healthy child that waits for work may look the same as a stuck one.
#pragma once

#include <set>
#include <string>

#include "process/process.h"

namespace forksafe::cli {

struct Evidence {
  ProcessStatus status;
  std::string name;         ///< for messages: "1234 (python3)"
  bool in_sight = false;    ///< whether its loaded files may be read
  int older_in_parent = 0;  ///< other threads of the parent that are not younger than the child
  int asleep = 0;           ///< threads that have slept since an earlier look
  int in_futex = 0;         ///< of these, those that wait in futex(2)
  std::vector<std::string> runtimes;  ///< "OpenBLAS 0.3.21 on its own threads"

  /// Whether it looks like a child that waits for threads of its parent.
  bool looks_stuck() const;
};

/// `asleep` has the threads that have slept since an earlier look. Throws Error if the process has
/// ended.
Evidence find_evidence(pid_t pid, const std::set<pid_t>& asleep);

/// "This is a forked child of 4242. It has 1 thread, ..."
std::string describe(const Evidence& evidence);

}  // namespace forksafe::cli
