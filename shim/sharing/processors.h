// SPDX-License-Identifier: Apache-2.0
// How many processors a process may use: the number that nproc prints (coreutils 9.8: affinity and
// cgroup quota).
#pragma once

namespace forksafe {

/// How many processors the calling thread may run on; 1 if the kernel does not say.
int affinity_processors();

/// The CPU bandwidth that the process's cgroup and those above it grant, in processors: rounded to
/// the nearest number, at least 1; 0 if there is no limit. `membership` is /proc/self/cgroup,
/// `mount` is /sys/fs/cgroup, where each v1 hierarchy has a folder named after its controllers.
int quota_processors(const char* membership = "/proc/self/cgroup",
                     const char* mount = "/sys/fs/cgroup");

}  // namespace forksafe
