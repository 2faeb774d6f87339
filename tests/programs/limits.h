// SPDX-License-Identifier: Apache-2.0
// Limits that a kernel, an administrator or a sandbox puts on a process. limited.cpp sets one
// before it executes a program. The programs that fork set one late, when their thread pools run: a
// server limits itself when it has started.
//
// A limit is a word: nproc=N, as=MB, as=+MB (more than it has now), nofile=N, fsize=BYTES, mdwe,
// seccomp=CALL:errno, seccomp=CALL:kill, no-proc, read-only, without=FOLDER (it becomes empty),
// chroot=FOLDER, full-stderr, closed-stderr. A limit that the kernel does not know or that this
// user may not set ends the process with status 77.
#pragma once

#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace limits {

[[noreturn]] inline void fail(int status, const std::string& limit) {
  fprintf(stderr, "limit %s: %s\n", limit.c_str(), strerror(errno));
  _exit(status);
}

inline void expect(bool well, const std::string& limit) {
  if (!well) fail(77, limit);
}

inline bool lower(int resource, rlim_t value) {
  const rlimit limit = {value, value};
  return setrlimit(resource, &limit) == 0;
}

inline rlim_t mapped_now() {
  FILE* file = fopen("/proc/self/statm", "r");
  unsigned long pages = 0;
  if (file == nullptr || fscanf(file, "%lu", &pages) != 1) fail(77, "as=+");
  fclose(file);
  return pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

// A user that has no other process on this machine, because the kernel counts the threads of a
// user. It keeps no capability, because a process that has one is not limited.
inline bool become_nobody_else() {
  const auto id = static_cast<uid_t>(100000 + getpid());
  return setgroups(0, nullptr) == 0 && setresgid(id, id, id) == 0 && setresuid(id, id, id) == 0;
}

inline long number_of(const std::string& call) {
  if (call == "madvise") return SYS_madvise;
  if (call == "mprotect") return SYS_mprotect;
  if (call == "rt_sigprocmask") return SYS_rt_sigprocmask;
  return -1;
}

// All threads of the process get the filter.
inline bool refuse(const std::string& call, bool kills) {
  const long number = number_of(call);
  if (number < 0) return false;
  const unsigned refused = kills ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | EPERM;
  sock_filter lines[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, refused),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {4, lines};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

// Whoever has the descriptors of this process keeps both ends of the pipe, so nobody gets EPIPE.
inline bool fill_stderr(bool with_reader) {
  int ends[2];
  if (pipe(ends) != 0) return false;
  if (with_reader) {
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    const char some[4096] = {};
    while (write(ends[1], some, sizeof some) > 0) {
    }
    fcntl(ends[1], F_SETFL, 0);
  } else {
    close(ends[0]);
  }
  return dup2(ends[1], STDERR_FILENO) >= 0 && close(ends[1]) == 0;
}

inline bool mount_private() {
  return unshare(CLONE_NEWNS) == 0 &&
         mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

inline bool make_empty(const char* folder) {
  return mount_private() && mount("tmpfs", folder, "tmpfs", MS_RDONLY, nullptr) == 0;
}

/// Sets the limit, or ends the process.
inline void set(const std::string& limit) {
  constexpr int kSetMdwe = 65;  // PR_SET_MDWE, Linux 6.3
  const size_t equals = limit.find('=');
  const std::string name = limit.substr(0, equals);
  const std::string value = equals == limit.npos ? "" : limit.substr(equals + 1);
  const auto number = static_cast<rlim_t>(strtoul(value.c_str(), nullptr, 10));
  if (name == "nproc") {
    expect(lower(RLIMIT_NPROC, number) && become_nobody_else(), limit);
  } else if (name == "as") {
    expect(lower(RLIMIT_AS, (number << 20) + (value[0] == '+' ? mapped_now() : 0)), limit);
  } else if (name == "nofile") {
    expect(lower(RLIMIT_NOFILE, number), limit);
  } else if (name == "fsize") {
    expect(lower(RLIMIT_FSIZE, number), limit);
  } else if (name == "mdwe") {
    expect(prctl(kSetMdwe, 1, 0, 0, 0) == 0, limit);
  } else if (name == "seccomp") {
    const size_t colon = value.find(':');
    expect(refuse(value.substr(0, colon), value.substr(colon + 1) == "kill"), limit);
  } else if (name == "no-proc") {
    expect(make_empty("/proc"), limit);
  } else if (name == "without") {
    expect(make_empty(value.c_str()), limit);
  } else if (name == "read-only") {
    expect(mount_private() &&
               mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0,
           limit);
  } else if (name == "chroot") {
    expect(chroot(value.c_str()) == 0 && chdir("/") == 0, limit);
  } else if (name == "full-stderr" || name == "closed-stderr") {
    expect(fill_stderr(name == "full-stderr"), limit);
  } else {
    fprintf(stderr, "no such limit: %s\n", limit.c_str());
    _exit(2);
  }
}

/// Sets the limit that FORKSAFE_TEST_LATE names, if it is set.
inline void set_late() {
  const char* limit = getenv("FORKSAFE_TEST_LATE");
  if (limit != nullptr) set(limit);
}

}  // namespace limits
