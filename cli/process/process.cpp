// SPDX-License-Identifier: Apache-2.0
#include "process/process.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <linux/futex.h>
#include <pwd.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <climits>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/error.h"

namespace forksafe::cli {
namespace {

constexpr unsigned kForkedNoExec = 0x40;  // PF_FORKNOEXEC, Linux 2.6 to 6.18

std::string proc_path(pid_t pid, const char* file) { return fmt::format("/proc/{}/{}", pid, file); }

// False, with errno, if the file can't be read.
bool read_file(const std::string& path, std::string* text) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  text->clear();
  char buffer[16384];
  ssize_t size;
  while ((size = read(fd, buffer, sizeof buffer)) > 0) {
    text->append(buffer, static_cast<size_t>(size));
  }
  const int error = errno;
  close(fd);
  errno = error;
  return size == 0;
}

std::vector<std::string> split_at_nul(const std::string& text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\0', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

std::vector<Mapping> parse_mappings(const std::string& text) {
  std::vector<Mapping> result;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    Mapping m;
    int path_at = 0;
    if (sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNx64 " %*s %" SCNu64 " %n",
               &m.begin, &m.end, &m.offset, &m.inode, &path_at) != 4 ||
        path_at == 0 || m.inode == 0) {
      continue;
    }
    m.path = line.substr(static_cast<size_t>(path_at));
    static const std::string kDeleted = " (deleted)";
    if (m.path.size() > kDeleted.size() &&
        m.path.compare(m.path.size() - kDeleted.size(), kDeleted.size(), kDeleted) == 0) {
      m.path.resize(m.path.size() - kDeleted.size());
      m.deleted = true;
    }
    result.push_back(m);
  }
  return result;
}

std::string user_name(uid_t user) {
  const passwd* entry = getpwuid(user);
  return entry != nullptr ? entry->pw_name : fmt::format("number {}", user);
}

// Throws Error if forksafe can't read the objects of this program.
void check_program(const Process& process) {
  const int fd = open(proc_path(process.pid(), "exe").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;  // the caller goes on with the mappings, which could be read
  ElfW(Ehdr) header = {};
  bool is_elf = pread(fd, &header, sizeof header, 0) == sizeof header &&
                memcmp(header.e_ident, ELFMAG, SELFMAG) == 0;
  ElfW(Ehdr) own = {};
  const int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (self < 0 || pread(self, &own, sizeof own, 0) != sizeof own) is_elf = false;
  if (self >= 0) close(self);
  if (is_elf &&
      (header.e_ident[EI_CLASS] != own.e_ident[EI_CLASS] || header.e_machine != own.e_machine)) {
    close(fd);
    throw Error(
        fmt::format("process {}: it is a {} program of another architecture than this "
                    "forksafe: use a forksafe that was built for it",
                    process.name(), header.e_ident[EI_CLASS] == ELFCLASS32 ? "32-bit" : "64-bit"));
  }
  bool dynamic = false;
  for (size_t i = 0; is_elf && i < header.e_phnum; ++i) {
    ElfW(Phdr) p = {};
    const auto at = static_cast<off_t>(header.e_phoff + i * sizeof p);
    if (pread(fd, &p, sizeof p, at) != sizeof p) break;
    dynamic = dynamic || p.p_type == PT_DYNAMIC;
  }
  const bool has_interpreter =
      std::any_of(process.mappings().begin(), process.mappings().end(),
                  [](const Mapping& m) { return m.path.find("/ld-") != std::string::npos; });
  close(fd);
  if (is_elf && (!dynamic || !has_interpreter)) {
    throw Error(fmt::format(
        "process {}: its program is statically linked: it has no libraries to look at, and "
        "LD_PRELOAD has no effect on it",
        process.name()));
  }
}

}  // namespace

bool read_status(pid_t pid, ProcessStatus* status) {
  std::string text;
  if (!read_file(proc_path(pid, "status"), &text)) return false;
  *status = ProcessStatus();
  status->pid = pid;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const char* s = line.c_str();
    sscanf(s, "State: %c", &status->state);
    sscanf(s, "Tgid: %d", &status->group_leader);
    sscanf(s, "PPid: %d", &status->parent);
    sscanf(s, "TracerPid: %d", &status->tracer);
    sscanf(s, "Uid: %u", &status->user);
    sscanf(s, "Threads: %d", &status->threads);
  }
  // "pid (name) state ppid pgrp session tty tpgid flags": the name may hold blanks and brackets.
  if (!read_file(proc_path(pid, "stat"), &text)) return false;
  const size_t end_of_name = text.rfind(')');
  unsigned flags = 0;
  if (end_of_name != std::string::npos &&
      sscanf(text.c_str() + end_of_name + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1) {
    status->forked = (flags & kForkedNoExec) != 0;
  }
  return true;
}

ThreadState read_thread_state(pid_t pid, pid_t tid) {
  ThreadState result;
  std::string text;
  read_file(fmt::format("/proc/{}/task/{}/status", pid, tid), &text);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    sscanf(line.c_str(), "State: %c", &result.letter);
    sscanf(line.c_str(), "voluntary_ctxt_switches: %ld", &result.switches);
  }
  return result;
}

namespace {

bool is_futex(long number) {
#ifdef SYS_futex_time64  // on 32-bit machines
  if (number == SYS_futex_time64) return true;
#endif
#ifdef SYS_futex
  if (number == SYS_futex) return true;
#endif
  return false;
}

}  // namespace

FutexWait read_futex_wait(pid_t pid, pid_t tid) {
  std::string line;
  read_file(fmt::format("/proc/{}/task/{}/syscall", pid, tid), &line);
  long number = -1;
  unsigned long long address = 0, operation = 0, value = 0, timeout = 0;
  // "running" for a thread that is not in the kernel.
  if (sscanf(line.c_str(), "%ld %llx %llx %llx %llx", &number, &address, &operation, &value,
             &timeout) != 5 ||
      !is_futex(number) || timeout != 0) {
    return FutexWait::kNone;
  }
  const auto command = operation & FUTEX_CMD_MASK;
  if (command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET && command != FUTEX_LOCK_PI) {
    return FutexWait::kNone;
  }
  return (operation & FUTEX_PRIVATE_FLAG) != 0 ? FutexWait::kPrivate : FutexWait::kShared;
}

unsigned long long read_start_time(pid_t pid) {
  std::string text;
  if (!read_file(proc_path(pid, "stat"), &text)) return 0;
  const size_t end_of_name = text.rfind(')');
  char state = 'X';
  unsigned long long started = 0;
  if (end_of_name == std::string::npos ||
      sscanf(text.c_str() + end_of_name + 1,
             " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
             &state, &started) != 2 ||
      state == 'Z' || state == 'X') {
    return 0;
  }
  return started;
}

std::vector<pid_t> thread_ids(pid_t pid) {
  std::vector<pid_t> result;
  DIR* folder = opendir(proc_path(pid, "task").c_str());
  if (folder == nullptr) return result;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') result.push_back(atoi(entry->d_name));
  }
  closedir(folder);
  std::sort(result.begin(), result.end());
  return result;
}

std::vector<std::string> read_arguments(pid_t pid) {
  std::string text;
  return read_file(proc_path(pid, "cmdline"), &text) ? split_at_nul(text)
                                                     : std::vector<std::string>();
}

Process::Process(pid_t pid) {
  if (!read_status(pid, &status_)) {
    throw Error(fmt::format("process {}: no process has this id", pid));
  }
  if (status_.group_leader != pid) {
    throw Error(fmt::format("process {}: this is a thread of process {}: give that id", pid,
                            status_.group_leader));
  }
  std::string text;
  arguments_ = read_arguments(pid);
  if (read_file(proc_path(pid, "environ"), &text)) environment_ = split_at_nul(text);
  char link[PATH_MAX];
  const ssize_t size = readlink(proc_path(pid, "exe").c_str(), link, sizeof link);
  if (size > 0) program_.assign(link, static_cast<size_t>(size));
  if (status_.state == 'Z' || status_.state == 'X') {
    throw Error(
        fmt::format("process {}: it has ended, but its parent {} has not waited for it "
                    "(zombie): try {}",
                    pid, status_.parent, status_.parent));
  }
  const bool readable = read_file(proc_path(pid, "maps"), &text);
  if (!readable && (errno == EACCES || errno == EPERM)) {
    throw Error(fmt::format("process {}: {}", name(), why_not_permitted(status_)));
  }
  if (!readable) throw Error(fmt::format("process {}: it has just ended", pid));
  mappings_ = parse_mappings(text);
  if (text.empty()) throw Error(fmt::format("process {}: it is a kernel thread", pid));
  check_program(*this);
}

std::string Process::name() const {
  const size_t slash = program_.rfind('/');
  if (program_.empty()) return std::to_string(pid());
  return fmt::format("{} ({})", pid(),
                     slash == std::string::npos ? program_ : program_.substr(slash + 1));
}

std::string Process::environment(const std::string& name) const {
  for (const std::string& entry : environment_) {
    if (entry.compare(0, name.size() + 1, name + "=") == 0) return entry.substr(name.size() + 1);
  }
  return "";
}

int Process::processors() const {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(pid(), sizeof set, &set) != 0) return 0;
  return CPU_COUNT(&set);
}

bool Process::read_memory(uintptr_t address, void* buffer, size_t size) const {
  const iovec local = {buffer, size};
  const iovec remote = {reinterpret_cast<void*>(address), size};
  return process_vm_readv(pid(), &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
}

std::string Process::root() const { return proc_path(pid(), "root"); }

std::vector<pid_t> all_processes() {
  std::vector<pid_t> result;
  DIR* folder = opendir("/proc");
  if (folder == nullptr) return result;
  while (const dirent* entry = readdir(folder)) {
    const int pid = atoi(entry->d_name);
    if (pid > 0) result.push_back(pid);
  }
  closedir(folder);
  return result;
}

std::vector<pid_t> process_tree(pid_t pid) {
  std::vector<pid_t> tree = {pid};
  std::multimap<pid_t, pid_t> children;
  for (const pid_t other : all_processes()) {
    ProcessStatus status;
    if (read_status(other, &status)) children.emplace(status.parent, other);
  }
  for (size_t i = 0; i < tree.size(); ++i) {
    const auto [first, last] = children.equal_range(tree[i]);
    const size_t begin = tree.size();
    for (auto child = first; child != last; ++child) tree.push_back(child->second);
    std::sort(tree.begin() + static_cast<std::ptrdiff_t>(begin), tree.end());
  }
  return tree;
}

std::string why_not_permitted(const ProcessStatus& status) {
  if (geteuid() != 0 && status.user != geteuid()) {
    return fmt::format("it belongs to user {}: try as that user or as root (sudo)",
                       user_name(status.user));
  }
  if (status.tracer != 0) {
    return fmt::format("process {} already traces it (a debugger?): end that first", status.tracer);
  }
  std::string scope;
  if (geteuid() != 0 && read_file("/proc/sys/kernel/yama/ptrace_scope", &scope) && scope != "0\n") {
    return fmt::format(
        "only root may look at running processes here "
        "(kernel.yama.ptrace_scope = {}): try with sudo",
        scope.substr(0, scope.size() - 1));
  }
  return geteuid() != 0 ? "the system does not permit this user to look at it: try as root (sudo)"
                        : "the system does not permit root to look at it: in a container, add the "
                          "capability SYS_PTRACE";
}

}  // namespace forksafe::cli
