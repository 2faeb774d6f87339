// SPDX-License-Identifier: Apache-2.0
// Why a process may not be traced: the permission that is missing, by its name, and what grants it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/error.h"
#include "process/process.h"

namespace forksafe::cli {

/// For messages: the name of a user, or "number 1234" if it has none.
std::string user_name(uid_t user);

/// The real, effective and saved id of a user or a group.
struct Ids {
  unsigned real = 0;
  unsigned effective = 0;
  unsigned saved = 0;
};

/// What decides whether forksafe may trace a process (Linux, kernel/ptrace.c, __ptrace_may_access,
/// and security/yama/yama_lsm.c).
struct Access {
  bool ptrace_fails = false;      ///< the system call itself is forbidden (seccomp)
  uint64_t own_capabilities = 0;  ///< a bit for each (capabilities(7))
  uint64_t its_capabilities = 0;
  uid_t own_user = 0;
  gid_t own_group = 0;
  Ids its_user;
  Ids its_group;
  bool is_dumpable = true;  ///< prctl(2), PR_SET_DUMPABLE
  pid_t tracer = 0;         ///< 0: no process traces it
  int yama_scope = 0;       ///< kernel.yama.ptrace_scope; 0 too if there is no Yama
  /// The AppArmor profile that holds for forksafe; empty if none does.
  std::string apparmor_profile{};
  bool in_own_users = true;  ///< forksafe is in the first user namespace of the system
};

Access read_access(const ProcessStatus& status);

struct Obstacle {
  std::string code;  ///< what is missing, to be read by programs: "yama", "other-user"
  std::string what;  ///< "it belongs to user root"
  std::string cure;  ///< "try as that user or as root (sudo)"
  // What grants it, as a line to copy; empty if nothing does.
  std::string docker{};
  std::string kubernetes{};
  std::string slurm{};
};

/// Why the process may not be traced. Call it if it may not.
Obstacle find_obstacle(const Access& access, pid_t pid);

/// "kernel.yama.ptrace_scope is 1, ...: try as root (sudo)"
std::string describe(const Obstacle& obstacle);

/// Thrown if a process may not be traced.
class NotPermitted : public Error {
 public:
  /// `name` is for the message: "1234 (python3)".
  NotPermitted(const std::string& name, const Obstacle& obstacle)
      : Error("process " + name + ": " + describe(obstacle)), obstacle_(obstacle) {}
  const Obstacle& obstacle() const { return obstacle_; }

 private:
  Obstacle obstacle_;
};

/// Why /proc has no process with this id: it may be the id in another pid namespace.
std::string why_not_found(pid_t pid);

}  // namespace forksafe::cli
