// SPDX-License-Identifier: Apache-2.0
// The limits that keep a process from making threads, read from /proc and /sys/fs/cgroup.
#pragma once

#include <optional>
#include <string>

#include "process/process.h"

namespace forksafe::cli {

struct ThreadLimit {
  std::string what;  ///< "RLIMIT_NPROC is 8, and its user has 8 threads"
  std::string cure;  ///< "raise RLIMIT_NPROC (ulimit -u)"
};

/// The limit that the process has reached now: RLIMIT_NPROC, or pids.max of its control group or of
/// a group above that. None if no limit is reached, or if it can't be seen from here (another pid
/// or cgroup namespace, seccomp, a core).
std::optional<ThreadLimit> find_thread_limit(const Process& process);

}  // namespace forksafe::cli
