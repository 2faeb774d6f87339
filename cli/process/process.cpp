// SPDX-License-Identifier: Apache-2.0
#include "process/process.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <climits>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/words.h"
#include "process/core.h"
#include "process/permission.h"

namespace forksafe::cli {
namespace {

std::string proc_path(pid_t pid, const char* file) { return fmt::format("/proc/{}/{}", pid, file); }

// The most bytes that the kernel takes for the arguments and the environment together, with a
// pointer to each word (fs/exec.c, bprm_stack_limits, from Linux 4.13 on: 3/4 of _STK_LIM). A
// process may tell the kernel that its arguments lie in a larger mapping (PR_SET_MM_MAP).
constexpr size_t kMostArgumentBytes = size_t{6} << 20;
constexpr size_t kMostArguments = kMostArgumentBytes / (sizeof(char*) + 1);

// Reads at most `most` bytes. False, with errno, if the file can't be read.
bool read_file(const std::string& path, std::string* text, size_t most = SIZE_MAX) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  text->clear();
  char buffer[16384];
  ssize_t size;
  do {
    size = read(fd, buffer, std::min(sizeof buffer, most - text->size()));
    text->append(buffer, static_cast<size_t>(std::max(size, ssize_t{0})));
  } while (size > 0);
  const int error = errno;
  close(fd);
  errno = error;
  return size == 0;
}

// The words of /proc/PID/cmdline or environ; empty if it can't be read.
std::vector<std::string> read_words(pid_t pid, const char* file) {
  std::string text;
  std::vector<std::string> words;
  if (!read_file(proc_path(pid, file), &text, kMostArgumentBytes)) return words;
  for (size_t at = 0; at < text.size() && words.size() < kMostArguments;) {
    const size_t end = std::min(text.find('\0', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

// What the kernel adds to the path of a file that was removed or replaced. False if it did not.
bool cut_deleted(std::string* path) {
  static const std::string kDeleted = " (deleted)";
  if (path->size() <= kDeleted.size()) return false;
  const size_t end = path->size() - kDeleted.size();
  if (path->compare(end, kDeleted.size(), kDeleted) != 0) return false;
  path->resize(end);
  return true;
}

// "begin-end rwxp offset device inode  path". A process may have thousands of lines, for which
// sscanf takes long.
std::vector<Mapping> parse_mappings(const std::string& text) {
  std::vector<Mapping> result;
  const char* const last = text.data() + text.size();
  for (const char* next = text.data(); next < last;) {
    // A text of its own: strtoul would skip the newline before a number.
    const std::string line(next, std::find(next, last, '\n'));
    const char* const end = line.data() + line.size();
    next += line.size() + 1;
    char* at = nullptr;
    Mapping m;
    m.begin = strtoul(line.c_str(), &at, 16);
    if (*at == '-') m.end = strtoul(at + 1, &at, 16);
    if (end - at < 6) continue;
    m.offset = strtoull(at + 5, &at, 16);
    strtoul(at, &at, 16);  // the device, in two parts
    if (*at == ':') strtoul(at + 1, &at, 16);
    m.inode = strtoull(at, &at, 10);
    if (m.inode == 0) continue;
    const char* path = at;
    while (path < end && *path == ' ') ++path;
    m.path.assign(path, end);
    m.deleted = cut_deleted(&m.path);
    result.push_back(m);
  }
  return result;
}

[[noreturn]] void refuse_static(const Process& process) {
  throw Error(
      fmt::format("process {}: its program is statically linked: it has no libraries to look at, "
                  "and LD_PRELOAD has no effect on it",
                  process.name()));
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
  // The loader names no loader: ld-linux-x86-64.so.2 PROGRAM.
  bool is_dynamic = is_loader(process.program());
  for (size_t i = 0; is_elf && i < header.e_phnum; ++i) {
    ElfW(Phdr) p = {};
    const auto at = static_cast<off_t>(header.e_phoff + i * sizeof p);
    if (pread(fd, &p, sizeof p, at) != sizeof p) break;
    is_dynamic = is_dynamic || p.p_type == PT_INTERP;
  }
  close(fd);
  if (is_elf && !is_dynamic) refuse_static(process);
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
    if (line.compare(0, 6, "Name:\t") == 0) status->name = line.substr(6);
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
    if (starts_with(line, "Name:\t")) result.name = line.substr(strlen("Name:\t"));
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

std::optional<SystemCall> read_system_call(pid_t pid, pid_t tid) {
  std::string text;
  SystemCall call;
  unsigned long* a = call.arguments;
  // "running" for a thread that is not in the kernel.
  if (!read_file(fmt::format("/proc/{}/task/{}/syscall", pid, tid), &text) ||
      sscanf(text.c_str(), "%ld %lx %lx %lx %lx %lx %lx", &call.number, a, a + 1, a + 2, a + 3,
             a + 4, a + 5) != 7) {
    return std::nullopt;
  }
  return call;
}

FutexWait futex_wait(const std::optional<SystemCall>& call) {
  if (!call || !is_futex(call->number)) return FutexWait::kNone;
  const unsigned long operation = call->arguments[1];
  const bool timed = call->arguments[3] != 0;
  const bool is_private = (operation & FUTEX_PRIVATE_FLAG) != 0;
  const auto command = operation & FUTEX_CMD_MASK;
  if (command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET && command != FUTEX_LOCK_PI) {
    return FutexWait::kNone;
  }
  if (timed) return is_private ? FutexWait::kPrivateTimed : FutexWait::kNone;
  return is_private ? FutexWait::kPrivate : FutexWait::kShared;
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

std::vector<std::string> read_arguments(pid_t pid) { return read_words(pid, "cmdline"); }

pid_t forked_by(const ProcessStatus& child) {
  if (!child.forked) return 0;
  // An orphan is a child of process 1. In a container, that may be the program itself.
  struct stat its = {}, first = {};
  const bool is_orphan =
      child.parent == 1 && (stat(proc_path(child.pid, "exe").c_str(), &its) != 0 ||
                            stat(proc_path(1, "exe").c_str(), &first) != 0 ||
                            its.st_dev != first.st_dev || its.st_ino != first.st_ino);
  return is_orphan ? 0 : child.parent;
}

bool is_loader(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return starts_with(name, "ld-") || starts_with(name, "ld64.so") || starts_with(name, "ld.so");
}

Process::Process(pid_t pid) {
  if (!read_status(pid, &status_)) {
    throw Error(fmt::format("process {}: {}", pid, why_not_found(pid)));
  }
  if (status_.group_leader != pid) {
    throw Error(fmt::format("process {}: this is a thread of process {}: give that id", pid,
                            status_.group_leader));
  }
  arguments_ = read_arguments(pid);
  environment_ = read_words(pid, "environ");
  char link[PATH_MAX];
  const ssize_t size = readlink(proc_path(pid, "exe").c_str(), link, sizeof link);
  if (size > 0) program_.assign(link, static_cast<size_t>(size));
  cut_deleted(&program_);
  if (status_.state == 'Z' || status_.state == 'X') {
    const std::vector<pid_t> threads = thread_ids(pid);
    if (std::any_of(threads.begin(), threads.end(), [pid](pid_t tid) {
          const char state = read_thread_state(pid, tid).letter;
          return state != 'Z' && state != 'X' && state != '?';
        })) {
      throw Error(
          fmt::format("process {}: its main thread has ended and others go on, so the "
                      "kernel does not show its memory",
                      pid));
    }
    throw Error(
        fmt::format("process {}: it has ended, but its parent {} has not waited for it "
                    "(zombie): try {}",
                    pid, status_.parent, status_.parent));
  }
  std::string text;
  const bool readable = read_file(proc_path(pid, "maps"), &text);
  if (!readable && (errno == EACCES || errno == EPERM)) {
    throw NotPermitted(name(), find_obstacle(read_access(status_), pid));
  }
  if (!readable) throw Error(fmt::format("process {}: it has just ended", pid));
  mappings_ = parse_mappings(text);
  if (text.empty()) throw Error(fmt::format("process {}: it is a kernel thread", pid));
  check_program(*this);
}

Process::Process(std::shared_ptr<const Core> core)
    : core_(std::move(core)), status_(core_->status()), mappings_(core_->mappings()) {
  const unsigned long headers = core_->auxiliary(AT_PHDR);
  for (const Mapping& m : mappings_) {
    if (m.begin <= headers && headers < m.end) program_ = m.path;
  }
  read_start();
  if (arguments_.empty()) arguments_ = {core_->command()};
  if (core_->auxiliary(AT_BASE) == 0 && !is_loader(program_)) refuse_static(*this);
}

// Reads the arguments and the environment at the start from the stack of a core. There the kernel
// has put, in this order: the number of arguments, their addresses, 0, the addresses of the
// variables, 0, the auxiliary vector, some alignment, and 16 random bytes.
void Process::read_start() {
  constexpr size_t kMostWords = 65536;
  constexpr size_t kMostText = size_t{4} << 20;
  const std::vector<unsigned long>& vector = core_->auxiliary();
  const uintptr_t random = core_->auxiliary(AT_RANDOM) & ~uintptr_t{7};
  // Search it downwards by its first two entries.
  std::array<unsigned long, 4> head;
  if (vector.size() < head.size()) return;
  uintptr_t at = random;
  do {
    at -= sizeof(uintptr_t);
    if (random - at > 4096 || !read_memory(at, head.data(), sizeof head)) return;
  } while (!std::equal(head.begin(), head.end(), vector.begin()));

  std::vector<uintptr_t> words;
  const auto read_down = [&](const auto& is_end) {
    words.clear();
    for (uintptr_t word = 0; words.size() < kMostWords;) {
      at -= sizeof word;
      if (!read_memory(at, &word, sizeof word)) return false;
      if (is_end(word)) break;
      words.push_back(word);
    }
    std::reverse(words.begin(), words.end());
    return words.size() < kMostWords;
  };
  size_t left = kMostText;
  const auto read_texts = [&](std::vector<std::string>* texts) {
    for (const uintptr_t word : words) {
      texts->push_back(read_text(word, left));
      left -= texts->back().size();
    }
  };
  uintptr_t zero = 1;
  at -= sizeof zero;
  if (!read_memory(at, &zero, sizeof zero) || zero != 0) return;
  if (!read_down([](uintptr_t word) { return word == 0; })) return;
  read_texts(&environment_);
  if (read_down([&](uintptr_t word) { return word == words.size(); })) read_texts(&arguments_);
}

std::string Process::name() const {
  const size_t slash = program_.rfind('/');
  if (program_.empty() && status_.name.empty()) return std::to_string(pid());
  if (program_.empty()) return fmt::format("{} ({})", pid(), status_.name);
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
  if (core_ != nullptr) return 0;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(pid(), sizeof set, &set) != 0) return 0;
  return CPU_COUNT(&set);
}

std::vector<pid_t> Process::threads() const {
  if (core_ == nullptr) return thread_ids(pid());
  std::vector<pid_t> result;
  for (const Core::Thread& thread : core_->threads()) result.push_back(thread.tid);
  return result;
}

std::optional<SystemCall> Process::system_call(pid_t tid) const {
  return core_ != nullptr ? core_->system_call(tid) : read_system_call(pid(), tid);
}

bool Process::read_memory(uintptr_t address, void* buffer, size_t size) const {
  if (core_ != nullptr) return core_->read_memory(address, buffer, size);
  const iovec local = {buffer, size};
  const iovec remote = {reinterpret_cast<void*>(address), size};
  return process_vm_readv(pid(), &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
}

// The page after the end of the text may not be mapped.
std::string Process::read_text(uintptr_t address, size_t most) const {
  std::string text;
  while (text.size() < most) {
    char buffer[4096];
    const uintptr_t at = address + text.size();
    const size_t size = std::min(most - text.size(), 4096 - at % 4096);
    if (!read_memory(at, buffer, size)) break;
    const size_t length = strnlen(buffer, size);
    text.append(buffer, length);
    if (length < size) break;
  }
  return text;
}

std::string Process::root() const { return core_ != nullptr ? "" : proc_path(pid(), "root"); }

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

std::vector<pid_t> process_tree(pid_t pid, int* too_deep) {
  std::vector<pid_t> tree = {pid};
  size_t end_of_generation = 1;
  size_t most = SIZE_MAX;
  int generation = 0;
  std::multimap<pid_t, pid_t> children;
  for (const pid_t other : all_processes()) {
    ProcessStatus status;
    if (other == pid || other == getpid()) continue;
    if (read_status(other, &status)) children.emplace(status.parent, other);
  }
  for (size_t i = 0; i < tree.size(); ++i) {
    if (i == end_of_generation) {
      if (++generation == kMostGenerations) most = tree.size();
      end_of_generation = tree.size();
    }
    const auto [first, last] = children.equal_range(tree[i]);
    const size_t begin = tree.size();
    for (auto child = first; child != last; ++child) tree.push_back(child->second);
    std::sort(tree.begin() + static_cast<std::ptrdiff_t>(begin), tree.end());
  }
  most = std::min(most, tree.size());
  if (too_deep != nullptr) *too_deep = static_cast<int>(tree.size() - most);
  tree.resize(most);
  return tree;
}

}  // namespace forksafe::cli
