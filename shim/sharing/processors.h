// SPDX-License-Identifier: Apache-2.0
// How many processors there are for a process: what nproc says (coreutils 9.8: affinity and cgroup
// quota).
#pragma once

namespace forksafe {

/// The processors that the calling thread may run on; 1 where the kernel does not say.
int affinity_processors();

/// The CPU bandwidth that the process's cgroup and those above it grant, in processors, rounded to
/// the nearest, at least 1; 0 where there is no limit. `membership` is /proc/self/cgroup, `mount`
/// /sys/fs/cgroup, where each v1 hierarchy stands in a folder with its controllers' names.
int quota_processors(const char* membership = "/proc/self/cgroup",
                     const char* mount = "/sys/fs/cgroup");

}  // namespace forksafe
