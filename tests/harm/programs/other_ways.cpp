// SPDX-License-Identifier: Apache-2.0
// Other ways to start a process, and other ways to find fork(). Each runs the same fork handlers as
// without the library, and the new process can fork. With the argument "threads" the program does
// all of this beside a thread that forks.
#include <pty.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>

#include <string>

#include "harm.h"

namespace {

constexpr int kRounds = 50;

// The fork handlers that have run in this thread, in their order.
thread_local std::string trace;

using Fork = pid_t (*)();

std::string take_trace() {
  std::string taken;
  taken.swap(trace);
  return taken.empty() ? "none" : taken;
}

// The child tells by its status whether it has seen `expected`.
void try_fork(const char* name, Fork make, bool may_fork_again = true) {
  std::string parent;
  std::string child_trace;
  for (int i = 0; i < kRounds * harm::times; ++i) {
    int ends[2];
    harm::expect(pipe(ends) == 0, "pipe");
    take_trace();
    harm::spend_fork();
    const pid_t child = make();
    if (child == 0) {
      const std::string seen = take_trace();
      harm::watch(30);
      if (write(ends[1], seen.data(), seen.size()) < 0) _exit(1);
      if (may_fork_again) harm::fork_chain(2);
      _exit(0);
    }
    parent = take_trace();
    close(ends[1]);
    char text[64];
    const ssize_t size = read(ends[0], text, sizeof text);
    close(ends[0]);
    child_trace = size > 0 ? std::string(text, static_cast<size_t>(size)) : "nothing";
    harm::reap_well(child);
  }
  harm::say("%s: parent %s, child %s", name, parent.c_str(), child_trace.c_str());
}

Fork symbol(void* handle, const char* name) { return reinterpret_cast<Fork>(dlsym(handle, name)); }

pid_t raw_clone() { return static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }

// While its terminal is open the child gets no SIGHUP.
int terminal = -1;

pid_t make_in_terminal() {
  if (terminal >= 0) close(terminal);
  return forkpty(&terminal, nullptr, nullptr, nullptr);
}

int exec_true(void*) {
  char* arguments[] = {const_cast<char*>("true"), nullptr};
  execv("/bin/true", arguments);
  _exit(9);
}

__attribute__((noinline)) pid_t vfork_true() {
  const pid_t child = vfork();
  if (child == 0) exec_true(nullptr);
  return child;
}

void run_programs() {
  char* arguments[] = {const_cast<char*>("true"), nullptr};
  alignas(16) static char stack[64 * 1024];
  for (int i = 0; i < kRounds; ++i) {
    take_trace();
    pid_t child = vfork_true();
    harm::reap_well(child);
    harm::expect(posix_spawn(&child, "/bin/true", nullptr, nullptr, arguments, environ) == 0,
                 "posix_spawn");
    harm::reap_well(child);
    child = clone(exec_true, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, nullptr);
    harm::reap_well(child);
    if (i % 5 != 0) continue;  // a shell takes longer
    const int status = system("exit 3");
    harm::expect(WIFEXITED(status) && WEXITSTATUS(status) == 3, "system");
    FILE* output = popen("echo from a shell", "r");
    char line[64] = "";
    harm::expect(output != nullptr && fgets(line, sizeof line, output) != nullptr, "popen");
    harm::expect(strcmp(line, "from a shell\n") == 0 && pclose(output) == 0, "pclose");
  }
  harm::say("vfork, posix_spawn, clone, system, popen: handlers %s", take_trace().c_str());
}

// A daemon is no child of this process, so it reports through a pipe which handlers ran.
void become_daemon() {
  for (int i = 0; i < kRounds; ++i) {
    int ends[2];
    harm::expect(pipe(ends) == 0, "pipe");
    const pid_t child = harm::bounded_fork();
    if (child == 0) {
      harm::watch(30);
      take_trace();
      harm::spend_fork();
      if (daemon(1, 1) != 0) _exit(1);
      const std::string seen = take_trace();
      harm::watch(30);
      harm::fork_chain(2);
      if (write(ends[1], seen.data(), seen.size()) < 0) _exit(1);
      _exit(0);
    }
    close(ends[1]);
    harm::reap_well(child);
    char text[64];
    const ssize_t size = read(ends[0], text, sizeof text);
    close(ends[0]);
    harm::expect(size > 0, "the daemon hung");
    if (i == 0) harm::say("daemon: %.*s", static_cast<int>(size), text);
  }
}

std::atomic<bool> stop{false};

void* fork_until_stopped(void*) {
  while (!stop) harm::fork_once();
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 200L * 1000);
  pthread_atfork([] { trace += "pA"; }, [] { trace += "rA"; }, [] { trace += "cA"; });
  pthread_atfork([] { trace += "pB"; }, [] { trace += "rB"; }, [] { trace += "cB"; });
  const bool threads = harm::mode_is("threads");
  pthread_t beside = {};
  if (threads) beside = harm::start_thread(fork_until_stopped);

  try_fork("fork", fork);
  try_fork("fork of RTLD_DEFAULT", symbol(RTLD_DEFAULT, "fork"));
  try_fork("fork of RTLD_NEXT", symbol(RTLD_NEXT, "fork"));
  void* libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  harm::expect(libc != nullptr, "libc.so.6");
  try_fork("fork of libc", symbol(libc, "fork"));
  if (const Fork fork_of_libc = symbol(libc, "__fork")) try_fork("__fork of libc", fork_of_libc);
  try_fork("forkpty", make_in_terminal);
  // With one thread no lock of glibc's can be held, so the child may call any function.
  if (const Fork bare = symbol(libc, "_Fork")) try_fork("_Fork", bare, !threads);
  try_fork("clone(SIGCHLD)", raw_clone, !threads);
  run_programs();
  become_daemon();

  stop = true;
  if (threads) pthread_join(beside, nullptr);
  harm::fork_chain(3);
  return 0;
}
