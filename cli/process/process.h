// SPDX-License-Identifier: Apache-2.0
// What /proc tells about another process. Nothing here stops it or writes to it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace forksafe::cli {

/// A line of /proc/PID/maps that a file is behind.
struct Mapping {
  uintptr_t begin = 0;
  uintptr_t end = 0;
  uintptr_t offset = 0;
  unsigned long inode = 0;
  std::string path;      ///< as the process sees it, without " (deleted)"
  bool deleted = false;  ///< the file has been removed or replaced since
};

/// /proc/PID/status and stat (proc(5)).
struct ProcessStatus {
  pid_t pid = 0;
  pid_t group_leader = 0;  ///< Tgid: differs from pid where pid is a thread's id
  pid_t parent = 0;
  pid_t tracer = 0;  ///< 0: nobody traces it
  uid_t user = 0;
  int threads = 0;
  char state = '?';
  bool forked = false;  ///< forked, and no exec since (PF_FORKNOEXEC, linux/sched.h)
};

/// False when there is no such process.
bool read_status(pid_t pid, ProcessStatus* status);

/// A process that can be looked at.
class Process {
 public:
  /// Throws an Error that says why a process can't be looked at and what to do: there is none, it
  /// is a thread, a zombie, a kernel thread, another user's, of another architecture, or static.
  explicit Process(pid_t pid);

  pid_t pid() const { return status_.pid; }
  const ProcessStatus& status() const { return status_; }
  const std::vector<Mapping>& mappings() const { return mappings_; }
  /// Its command line; empty when it can't be read.
  const std::vector<std::string>& arguments() const { return arguments_; }
  /// The path of its program.
  const std::string& program() const { return program_; }
  std::string name() const;  ///< for messages: "1234 (python3)"

  /// A variable of the environment that it was started with; empty when it has none such.
  std::string environment(const std::string& name) const;
  /// How many processors it may run on.
  int processors() const;
  std::vector<pid_t> threads() const;
  /// Copies its memory; false when that is not permitted or not mapped.
  bool read_memory(uintptr_t address, void* buffer, size_t size) const;
  /// Its root folder, through which its paths are to be read: it may live in a container.
  std::string root() const;

 private:
  ProcessStatus status_;
  std::vector<Mapping> mappings_;
  std::vector<std::string> arguments_;
  std::vector<std::string> environment_;
  std::string program_;
};

/// The command line of a process; empty when it can't be read.
std::vector<std::string> read_arguments(pid_t pid);

std::vector<pid_t> all_processes();

/// All processes below `pid`, and `pid` itself first, parents before children.
std::vector<pid_t> process_tree(pid_t pid);

/// Why a process of `user` may not be traced, and what to do about it: for an Error's text.
std::string why_not_permitted(const ProcessStatus& status);

}  // namespace forksafe::cli
