// SPDX-License-Identifier: Apache-2.0
// A prepare handler needs a signal: it stops the library's other threads with one, as garbage
// collectors do, and sends one to itself. So handlers must get the signals that the caller of
// fork() does not block, and no others. The same holds for parent and child handlers.
#include <semaphore.h>

#include "harm.h"

namespace {

constexpr int kForks = 300;
constexpr int kOther = 2;  // seconds that another thread may take to answer

volatile sig_atomic_t came = 0;
sem_t stopped;
pthread_t other;

void on_own_signal(int) { ++came; }
void on_stop(int) { sem_post(&stopped); }

void* wait_for_signals(void*) {
  for (;;) pause();
}

void signal_itself() {
  const sig_atomic_t before = came;
  pthread_kill(pthread_self(), SIGUSR1);
  harm::expect(came == before + 1, "a signal came in a handler");
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  for (int s = 1; s <= SIGRTMAX; ++s) {
    harm::expect(sigismember(&mask, s) == (s == SIGHUP ? 1 : 0) || sigismember(&mask, s) < 0,
                 "a handler has the caller's signal mask");
  }
}

void prepare() {
  signal_itself();
  pthread_kill(other, SIGUSR2);
  timespec end;
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += kOther;
  while (sem_timedwait(&stopped, &end) != 0) {
    harm::expect(errno == EINTR, "the other thread did not answer a signal");
  }
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 5L * kForks);
  sem_init(&stopped, 0, 0);
  harm::on_signal(SIGUSR1, on_own_signal);
  harm::on_signal(SIGUSR2, on_stop);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGHUP);
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  other = harm::start_thread(wait_for_signals);
  pthread_atfork(prepare, signal_itself, signal_itself);
  for (int i = 0; i < kForks * harm::times; ++i) {
    const pid_t child = harm::bounded_fork();
    if (child == 0) _exit(0);
    harm::reap_well(child);
  }
  harm::say("%d forks whose handlers need signals ended well", kForks);
  _exit(0);  // the other thread goes on
}
