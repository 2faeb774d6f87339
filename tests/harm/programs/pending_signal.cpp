// SPDX-License-Identifier: Apache-2.0
// A program has blocked all signals, as one that takes them by sigwait or signalfd. One is pending
// when it forks, and stays pending. So it is in a child that forks.
//
// With the argument libgomp.so.1 the program loads GNU OpenMP first, so the library has something
// to do around a fork.
#include "harm.h"

namespace {

// Those that a fault raises too. Another process or a timer may send them.
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGUSR1, SIGTERM};

void send_and_fork(int number) {
  kill(getpid(), number);
  harm::fork_once();
  sigset_t pending;
  sigpending(&pending);
  harm::expect(sigismember(&pending, number) == 1, "the signal is not pending any more");
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, number);
  int taken = 0;
  harm::expect(sigwait(&one, &taken) == 0 && taken == number, "sigwait");
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 100);
  if (harm::mode_is("libgomp.so.1")) harm::load_gnu_openmp();
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  for (const int number : kSignals) {
    const pid_t child = harm::bounded_fork();
    if (child == 0) {
      harm::watch(30);
      send_and_fork(number);
      _exit(0);
    }
    harm::reap_well(child);
    send_and_fork(number);
  }
  harm::say("%zu signals stayed pending", sizeof kSignals / sizeof *kSignals);
  return 0;
}
