// SPDX-License-Identifier: Apache-2.0
// A prefork server: the handler of SIGCHLD reaps workers that have ended and forks new ones, while
// the program forks too. Every other new worker returns from the handler and finishes the fork that
// the signal interrupted.
#include "harm.h"

namespace {

constexpr int kForks = 2000;

pid_t program;
std::atomic<long> prepared{0};
std::atomic<long> continued{0};
std::atomic<long> respawned{0};

void on_child(int) {
  const int saved = errno;
  int status;
  while (waitpid(-1, &status, WNOHANG) > 0) {
    harm::expect(status == 0, "a worker did not end well");
    if (respawned >= kForks * harm::times) continue;
    const long number = ++respawned;
    const pid_t child = harm::bounded_fork();
    if (child != 0) continue;
    if (number % 2 == 0) _exit(0);
    // If this process has a child of its own, the code below waits for it.
    signal(SIGCHLD, SIG_DFL);
    break;
  }
  errno = saved;
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 6L * kForks);
  program = getpid();
  pthread_atfork([] { ++prepared; }, [] { ++continued; }, nullptr);
  harm::on_signal(SIGCHLD, on_child);
  for (int i = 0; i < kForks * harm::times; ++i) {
    const pid_t child = harm::bounded_fork();
    if (child == 0) _exit(0);
    if (getpid() != program) {
      waitpid(child, nullptr, 0);
      _exit(0);
    }
    harm::expect(child > 0, "fork failed");
  }
  sigset_t ended;
  sigemptyset(&ended);
  sigaddset(&ended, SIGCHLD);
  sigprocmask(SIG_BLOCK, &ended, nullptr);
  int status;
  while (waitpid(-1, &status, 0) > 0) harm::expect(status == 0, "a worker did not end well");
  if (getpid() != program) _exit(0);
  harm::expect(respawned > 0, "the handler never forked");
  harm::expect(prepared == continued, "each prepare handler has its parent handler");
  harm::say("%d workers, and those that the handler has started, ended well", kForks);
  return 0;
}
