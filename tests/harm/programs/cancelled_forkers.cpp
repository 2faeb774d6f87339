// SPDX-License-Identifier: Apache-2.0
// Threads that fork in a loop are cancelled at any moment, and end where they wait for their child.
// Afterwards all other threads can still fork.
//
// Asynchronous cancellation inside fork() is not tested: it leaves glibc's own locks locked.
#include "harm.h"

namespace {

constexpr int kRounds = 200;

std::atomic<long> loops{0};

void* fork_until_cancelled(void*) {
  for (;;) {
    const pid_t child = harm::bounded_fork();
    if (child == 0) _exit(0);
    harm::expect(child > 0, "fork failed");
    ++loops;
    waitpid(child, nullptr, 0);  // a cancellation point
  }
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 200000);
  for (int i = 0; i < kRounds * harm::times; ++i) {
    const pthread_t thread = harm::start_thread(fork_until_cancelled);
    const long before = loops;
    while (loops == before) harm::pause_us(20);
    harm::pause_us(i % 37 * 20);
    pthread_cancel(thread);
    void* result = nullptr;
    pthread_join(thread, &result);
    harm::expect(result == PTHREAD_CANCELED, "the thread was cancelled");
    const pid_t child = harm::bounded_fork();
    if (child == 0) {
      harm::watch(30);
      harm::fork_once();
      _exit(0);
    }
    harm::reap_well(child);
    // Reap the children of threads that were cancelled.
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
  }
  harm::say("%d cancelled threads, and the program still forks", kRounds);
  return 0;
}
