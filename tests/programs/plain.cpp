// SPDX-License-Identifier: Apache-2.0
// A program without BLAS and OpenMP. It starts processes in every way, and prints fork handlers,
// signals, errno and threads around that. With the library it must print the same.
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

std::string trace;

template <char Name>
void register_handlers() {
  pthread_atfork(
      [] {
        trace += {'p', Name};
      },
      [] {
        trace += {'r', Name};
      },
      [] {
        trace += {'c', Name};
      });
}

int reap(pid_t child) {
  int status = 0;
  return waitpid(child, &status, 0) == child ? status : -1;
}

std::string signal_state() {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  std::string text;
  for (int s = 1; s < 32; ++s) {
    struct sigaction action;
    sigaction(s, nullptr, &action);
    text += sigismember(&mask, s) ? 'b' : '-';
    text += action.sa_handler == SIG_DFL ? 'd' : 'h';
  }
  return text;
}

void show(const std::string& line) {
  const std::string all = line + "\n";
  if (write(STDOUT_FILENO, all.data(), all.size()) < 0) abort();
}

void show_threads(const char* where) {
  FILE* status = fopen("/proc/self/status", "r");
  char line[256];
  while (fgets(line, sizeof line, status) != nullptr) {
    if (strncmp(line, "Threads:", 8) == 0) show(std::string(where) + " " + strtok(line, "\n"));
  }
  fclose(status);
}

void forks() {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  show("signals " + signal_state());
  for (int i = 0; i < 3; ++i) {
    trace.clear();
    errno = 4000 + i;
    const pid_t child = fork();
    const int seen = errno;
    if (child == 0) {
      show("child " + trace + " errno " + std::to_string(seen) + " signals " + signal_state());
      show_threads("child");
      _exit(0);
    }
    reap(child);
    show("parent " + trace + " errno " + std::to_string(seen) + " signals " + signal_state());
    show_threads("parent");
  }
}

void other_ways() {
  show("system " + std::to_string(system("exit 3")));
  FILE* pipe = popen("echo from a pipe", "r");
  char line[64] = "";
  if (fgets(line, sizeof line, pipe) == nullptr) abort();
  show("popen " + std::string(line) + std::to_string(pclose(pipe)));
  char* arguments[] = {const_cast<char*>("true"), nullptr};
  pid_t child = 0;
  const int failed = posix_spawn(&child, "/bin/true", nullptr, nullptr, arguments, environ);
  show("posix_spawn " + std::to_string(failed) + " " + std::to_string(reap(child)));
  child = vfork();
  if (child == 0) {
    execv("/bin/true", arguments);
    _exit(9);
  }
  show("vfork " + std::to_string(reap(child)));
  int terminal = -1;
  trace.clear();
  child = forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child == 0) _exit(trace == "pBpAcAcB" ? 5 : 6);
  show("forkpty " + std::to_string(reap(child)) + " " + trace);
}

// daemon() ends the process that calls it and goes on in a child with a session of its own. So the
// trace comes through a pipe.
void become_daemon() {
  int ends[2];
  if (pipe(ends) != 0) abort();
  const pid_t child = fork();
  if (child == 0) {
    trace.clear();
    if (daemon(1, 1) != 0) _exit(1);
    if (write(ends[1], trace.data(), trace.size()) < 0) abort();
    _exit(0);
  }
  close(ends[1]);
  reap(child);
  char text[64] = "";
  if (read(ends[0], text, sizeof text - 1) < 0) abort();
  show("daemon " + std::string(text));
}

}  // namespace

int main() {
  register_handlers<'A'>();
  register_handlers<'B'>();
  forks();
  other_ways();
  become_daemon();
  return 0;
}
