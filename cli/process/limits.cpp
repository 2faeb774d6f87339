// SPDX-License-Identifier: Apache-2.0
#include "process/limits.h"

#include <fmt/format.h>
#include <linux/capability.h>

#include <cstdio>
#include <fstream>

namespace forksafe::cli {
namespace {

// The number in a file of one line; none for "max" and for a file that does not exist.
std::optional<long> read_number(const std::string& path) {
  long number = 0;
  std::ifstream file(path);
  if (!(file >> number)) return std::nullopt;
  return number;
}

// The value after `name` in a file with lines such as "Threads:  4"; empty if there is none.
std::string read_field(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, name.size(), name) != 0) continue;
    const size_t begin = line.find_first_not_of(" \t", name.size());
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

// The kernel does not apply RLIMIT_NPROC to root or to a process with these capabilities
// (kernel/fork.c, copy_process).
bool is_exempt(const ProcessStatus& status) {
  const std::string path = fmt::format("/proc/{}/status", status.pid);
  unsigned long long capabilities = 0;
  sscanf(read_field(path, "CapEff:").c_str(), "%llx", &capabilities);
  return status.user == 0 ||
         (capabilities & (1ULL << CAP_SYS_RESOURCE | 1ULL << CAP_SYS_ADMIN)) != 0;
}

long count_threads_of(uid_t user) {
  long count = 0;
  for (const pid_t pid : all_processes()) {
    ProcessStatus status;
    if (read_status(pid, &status) && status.user == user) count += status.threads;
  }
  return count;
}

std::optional<ThreadLimit> find_user_limit(const Process& process) {
  long limit = 0;
  const std::string path = fmt::format("/proc/{}/limits", process.pid());
  if (sscanf(read_field(path, "Max processes").c_str(), "%ld", &limit) != 1 ||
      is_exempt(process.status())) {
    return std::nullopt;
  }
  const long count = count_threads_of(process.status().user);
  if (count < limit) return std::nullopt;
  return ThreadLimit{fmt::format("RLIMIT_NPROC is {}, and its user has {} thread{}", limit, count,
                                 count == 1 ? "" : "s"),
                     "raise RLIMIT_NPROC (ulimit -u)"};
}

// A line of /proc/PID/cgroup is "number:controllers:path"; version 2 has one line, "0::path".
std::optional<ThreadLimit> find_group_limit(const Process& process) {
  std::ifstream file(fmt::format("/proc/{}/cgroup", process.pid()));
  for (std::string line; std::getline(file, line);) {
    const size_t controllers = line.find(':') + 1;
    const size_t path = line.find(':', controllers) + 1;
    if (controllers == 0 || path == 0) continue;
    const std::string names = line.substr(controllers, path - 1 - controllers);
    if (!names.empty() && names != "pids") continue;
    const std::string root = names.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/pids";
    for (std::string group = line.substr(path); !group.empty();
         group.resize(group.find_last_of('/'))) {
      const auto limit = read_number(root + group + "/pids.max");
      const auto count = read_number(root + group + "/pids.current");
      if (!limit || !count || *count < *limit) continue;
      return ThreadLimit{
          fmt::format("pids.max of the control group {} is {}, and it has {} thread{}", group,
                      *limit, *count, *count == 1 ? "" : "s"),
          fmt::format("raise pids.max of {}", group)};
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<ThreadLimit> find_thread_limit(const Process& process) {
  if (process.core() != nullptr) return std::nullopt;
  if (auto limit = find_user_limit(process)) return limit;
  return find_group_limit(process);
}

}  // namespace forksafe::cli
