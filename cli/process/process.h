// SPDX-License-Identifier: Apache-2.0
// Reads another process from /proc or from a core, and its memory. Nothing here stops the process
// or writes to it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace forksafe::cli {

/// A flag of a process that was forked and has executed nothing since (PF_FORKNOEXEC,
/// linux/sched.h, Linux 2.6 to 6.18).
constexpr unsigned kForkedNoExec = 0x40;

/// A line of /proc/PID/maps whose mapping has a file.
struct Mapping {
  uintptr_t begin = 0;
  uintptr_t end = 0;
  uint64_t offset = 0;
  uint64_t inode = 0;
  std::string path;      ///< as the process sees it, without " (deleted)"
  bool deleted = false;  ///< the file was removed or replaced after it was mapped
};

/// /proc/PID/status and stat (proc(5)).
struct ProcessStatus {
  pid_t pid = 0;
  std::string name;        ///< the first 15 characters of the program's
  pid_t group_leader = 0;  ///< Tgid: differs from pid where pid is a thread's id
  pid_t parent = 0;
  pid_t tracer = 0;  ///< 0: no process traces it
  uid_t user = 0;
  int threads = 0;
  char state = '?';
  bool forked = false;  ///< forked, and no exec since
};

/// False when there is no such process.
bool read_status(pid_t pid, ProcessStatus* status);

/// How a thread is scheduled.
struct ThreadState {
  std::string name;    ///< comm
  char letter = '?';   ///< State in status: 'S' sleeps, 'R' runs
  long switches = -1;  ///< how often it has gone to sleep so far
};

ThreadState read_thread_state(pid_t pid, pid_t tid);

/// A system call in which a thread waits.
struct SystemCall {
  long number = -1;
  unsigned long arguments[6] = {};
};

/// None if the thread runs, or if that can't be read.
std::optional<SystemCall> read_system_call(pid_t pid, pid_t tid);

/// Whether that waits in futex(2), and whether threads of its process alone can wake it
/// (FUTEX_PRIVATE_FLAG). A wait with a timeout counts only if it is private.
enum class FutexWait { kNone, kShared, kPrivate, kPrivateTimed };
FutexWait futex_wait(const std::optional<SystemCall>& call);

/// When a process or a thread was started, in ticks since the start of the system. 0 if there is no
/// such process, or it has ended.
unsigned long long read_start_time(pid_t pid);

/// The threads of a process, in the order of their ids; empty if there is no such process.
std::vector<pid_t> thread_ids(pid_t pid);

class Core;

/// Whether a path is that of the dynamic linker: ld-linux-x86-64.so.2, ld-2.31.so, ld64.so.1
/// (s390x), ld64.so.2 (ppc64le), ld.so.1.
bool is_loader(const std::string& path);

/// A process that can be read: a live one, or one in a core.
class Process {
 public:
  /// Throws Error if the process can't be read: it does not exist, or is a thread, a zombie, a
  /// kernel thread, of another architecture, or static. Throws NotPermitted if it may not be read.
  /// The error says what to do.
  explicit Process(pid_t pid);
  /// Throws Error if the program is static.
  explicit Process(std::shared_ptr<const Core> core);

  /// Null for a live process.
  const Core* core() const { return core_.get(); }
  pid_t pid() const { return status_.pid; }
  const ProcessStatus& status() const { return status_; }
  const std::vector<Mapping>& mappings() const { return mappings_; }
  /// The command line; empty if it can't be read.
  const std::vector<std::string>& arguments() const { return arguments_; }
  /// The path of its program.
  const std::string& program() const { return program_; }
  std::string name() const;  ///< for messages: "1234 (python3)"

  /// A variable of the environment that the process was started with; empty if it is not set.
  std::string environment(const std::string& name) const;
  /// How many processors the process may run on; 0 if that is not known.
  int processors() const;
  std::vector<pid_t> threads() const;
  /// As read_system_call() does.
  std::optional<SystemCall> system_call(pid_t tid) const;
  /// Copies memory of the process. False if that is not permitted, or the memory is not mapped or
  /// not in the core.
  bool read_memory(uintptr_t address, void* buffer, size_t size) const;
  /// Reads a text of at most `most` bytes.
  std::string read_text(uintptr_t address, size_t most) const;
  /// The path of the process's root folder. Its paths are relative to that, as it may be in a
  /// container. Empty for a core.
  std::string root() const;

 private:
  void read_start();

  std::shared_ptr<const Core> core_;
  ProcessStatus status_;
  std::vector<Mapping> mappings_;
  std::vector<std::string> arguments_;
  std::vector<std::string> environment_;
  std::string program_;
};

/// The command line of a process; empty if it can't be read.
std::vector<std::string> read_arguments(pid_t pid);

/// The process that forked this child; 0 if that has ended, or it is no forked child.
pid_t forked_by(const ProcessStatus& child);

std::vector<pid_t> all_processes();

/// How many generations below a process process_tree() goes.
constexpr int kMostGenerations = 16;

/// `pid` and its descendants without this process, parents before their children. `too_deep` gets
/// the number of descendants that are left out because they are more than kMostGenerations below
/// `pid`.
std::vector<pid_t> process_tree(pid_t pid, int* too_deep = nullptr);

}  // namespace forksafe::cli
