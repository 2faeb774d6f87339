// SPDX-License-Identifier: Apache-2.0
#include "process/permission.h"

#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <fstream>

namespace forksafe::cli {

std::string user_name(uid_t user) {
  const passwd* entry = getpwuid(user);
  return entry != nullptr ? entry->pw_name : fmt::format("number {}", user);
}

namespace {

constexpr uint64_t kSysPtrace = uint64_t{1} << CAP_SYS_PTRACE;

std::string group_name(gid_t group) {
  const ::group* entry = getgrgid(group);
  return entry != nullptr ? entry->gr_name : fmt::format("number {}", group);
}

bool are_all(const Ids& ids, unsigned id) {
  return ids.real == id && ids.effective == id && ids.saved == id;
}

std::string read_link(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t size = readlink(path.c_str(), target, sizeof target);
  return size > 0 ? std::string(target, static_cast<size_t>(size)) : "";
}

// The AppArmor profile that holds for this process; empty if none does. "docker-default (enforce)",
// "unconfined", or a context of SELinux in the file of older kernels (before 5.8).
std::string own_apparmor_profile() {
  std::string line;
  for (const char* file : {"/proc/self/attr/apparmor/current", "/proc/self/attr/current"}) {
    if (std::getline(std::ifstream(file), line)) break;
  }
  const size_t mode = line.rfind(" (enforce)");
  return mode != std::string::npos ? line.substr(0, mode) : "";
}

// A step of the job, outside of any container and with the user and the groups of the job. Without
// a node, Slurm may choose another one of the job's.
std::string as_step(pid_t pid) {
  return fmt::format("srun --overlap --jobid=JOB --nodelist=NODE forksafe diagnose {}", pid);
}

// The capability SYS_PTRACE grants it.
Obstacle by_capability(const Access& access, const std::string& code, const std::string& what) {
  Obstacle obstacle = {code, what, "try as root (sudo), or with the capability SYS_PTRACE"};
  if (access.own_user == 0) obstacle.cure = "in a container, add the capability SYS_PTRACE";
  obstacle.docker = "docker run --cap-add=SYS_PTRACE";
  obstacle.kubernetes = "securityContext: {capabilities: {add: [SYS_PTRACE]}}";
  return obstacle;
}

// The capability grants it, and so does a step of the job.
Obstacle by_step(const Access& access, pid_t pid, const std::string& code,
                 const std::string& what) {
  Obstacle obstacle = by_capability(access, code, what);
  obstacle.slurm = as_step(pid);
  return obstacle;
}

// A profile forbids it to who has the capability, too (Linux, security/apparmor/task.c,
// profile_tracer_perm).
Obstacle by_apparmor(const Access& access, pid_t pid) {
  Obstacle obstacle = {
      "apparmor",
      fmt::format("the AppArmor profile {}, under which forksafe runs, may forbid it",
                  access.apparmor_profile),
      "run forksafe outside of that profile, or see the system's log (dmesg)"};
  obstacle.docker = "docker run --security-opt apparmor=unconfined";
  obstacle.kubernetes = "securityContext: {appArmorProfile: {type: Unconfined}}";
  obstacle.slurm = as_step(pid);
  return obstacle;
}

Obstacle by_other_user(const Access& access, pid_t pid) {
  const uid_t user = access.its_user.effective;
  Obstacle obstacle = {"other-user", fmt::format("it belongs to user {}", user_name(user)),
                       "try as that user or as root (sudo)"};
  if (access.its_user.real == access.own_user) {
    obstacle.what = fmt::format("it is a set-uid program of user {}", user_name(user));
    obstacle.cure = "try as root (sudo)";
  }
  if (access.own_user == 0) {
    obstacle.what += ", and root does not have the capability SYS_PTRACE here";
    obstacle.cure = "try as that user, or in a container, add that capability";
  }
  obstacle.docker = fmt::format("docker exec --user {} CONTAINER forksafe diagnose {}", user, pid);
  obstacle.kubernetes = fmt::format("securityContext: {{runAsUser: {}}}", user);
  obstacle.slurm = as_step(pid) + ", as the user of the job";
  return obstacle;
}

Obstacle by_yama(const Access& access) {
  const std::string scope =
      fmt::format("kernel.yama.ptrace_scope is {}, which ", access.yama_scope);
  if (access.yama_scope >= 3) {
    return {"yama", scope + "forbids tracing to everybody until the next boot",
            "set it to 1 in /etc/sysctl.d, and boot"};
  }
  Obstacle obstacle = by_capability(
      access, "yama",
      scope +
          (access.yama_scope == 1
               ? "permits it only to the ancestors of a process and to the capability SYS_PTRACE"
               : "permits it only to the capability SYS_PTRACE"));
  obstacle.slurm = "sysctl kernel.yama.ptrace_scope=0, as root of the node";
  return obstacle;
}

}  // namespace

Access read_access(const ProcessStatus& status) {
  Access access;
  // The process 0 does not exist, so the system call fails with ESRCH unless it is forbidden.
  access.ptrace_fails = ptrace(PTRACE_PEEKUSER, 0, nullptr, nullptr) != 0 && errno != ESRCH;
  access.own_user = geteuid();
  access.own_group = getegid();
  access.its_user = access.its_group = {};
  const auto read = [](const std::string& path, uint64_t* capabilities, Ids* user, Ids* group) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      unsigned long long number = 0;
      if (sscanf(line.c_str(), "CapPrm: %llx", &number) == 1) *capabilities = number;
      sscanf(line.c_str(), "Uid: %u %u %u", &user->real, &user->effective, &user->saved);
      sscanf(line.c_str(), "Gid: %u %u %u", &group->real, &group->effective, &group->saved);
    }
  };
  Ids own;
  read("/proc/self/status", &access.own_capabilities, &own, &own);
  read(fmt::format("/proc/{}/status", status.pid), &access.its_capabilities, &access.its_user,
       &access.its_group);
  access.tracer = status.tracer;
  // The files of a process that is not dumpable belong to root (proc(5)).
  struct stat info = {};
  if (stat(fmt::format("/proc/{}/maps", status.pid).c_str(), &info) == 0) {
    access.is_dumpable = info.st_uid == access.its_user.effective;
  }
  std::ifstream("/proc/sys/kernel/yama/ptrace_scope") >> access.yama_scope;
  access.apparmor_profile = own_apparmor_profile();
  access.in_own_users = read_link("/proc/self/ns/user") == "user:[4026531837]";
  return access;
}

Obstacle find_obstacle(const Access& access, pid_t pid) {
  const bool may_trace_all = (access.own_capabilities & kSysPtrace) != 0;
  const bool has_more = (access.its_capabilities & ~access.own_capabilities) != 0;
  if (access.ptrace_fails) {
    return by_step(access, pid, "seccomp", "seccomp forbids the system call ptrace here");
  }
  if (!may_trace_all) {
    if (!are_all(access.its_user, access.own_user)) return by_other_user(access, pid);
    if (!are_all(access.its_group, access.own_group)) {
      const std::string group = group_name(access.its_group.effective);
      return by_step(access, pid, "other-group",
                     fmt::format("it runs with group {}, and forksafe does not", group));
    }
    if (has_more) {
      return by_capability(access, "capability", "it has capabilities that forksafe does not have");
    }
    if (!access.is_dumpable) {
      return by_capability(access, "not-dumpable",
                           "it is not dumpable (prctl PR_SET_DUMPABLE, or a set-uid program)");
    }
  }
  if (access.tracer != 0) {
    return {"tracer", fmt::format("process {} already traces it (a debugger?)", access.tracer),
            "end that first"};
  }
  if (access.yama_scope >= 3 || (access.yama_scope > 0 && !may_trace_all)) {
    return by_yama(access);
  }
  if (!access.in_own_users) {
    return {"user-namespace", "it is outside of forksafe's user namespace (a container?)",
            "run forksafe where the process was started"};
  }
  if (!access.apparmor_profile.empty()) return by_apparmor(access, pid);
  const char* unknown = "the system does not permit it (SELinux?)";
  if (!may_trace_all) return by_step(access, pid, "system", unknown);
  return {"system", unknown, "see its log (dmesg)"};
}

std::string describe(const Obstacle& obstacle) { return obstacle.what + ": " + obstacle.cure; }

std::string why_not_found(pid_t pid) {
  if (kill(pid, 0) == 0 || errno == EPERM) {
    return "/proc hides it (it is mounted with hidepid): try as root (sudo)";
  }
  std::string none = "no process has this id";
  for (const pid_t other : all_processes()) {
    // "NSpid: 4242 7": its id here, and in each pid namespace below this one.
    std::ifstream file(fmt::format("/proc/{}/status", other));
    for (std::string line; std::getline(file, line);) {
      if (line.compare(0, 6, "NSpid:") != 0) continue;
      if (line.substr(line.find_last_of(" \t") + 1) != std::to_string(pid)) break;
      return fmt::format("{}; process {} has it in its own pid namespace (a container?): give {}",
                         none, other, other);
    }
  }
  if (read_link("/proc/self/ns/pid") == "pid:[4026531836]") return none;
  return none +
         " in forksafe's pid namespace (a container?): give its id in that, or run forksafe where "
         "the process was started";
}

}  // namespace forksafe::cli
