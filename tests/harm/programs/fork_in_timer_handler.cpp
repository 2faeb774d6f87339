// SPDX-License-Identifier: Apache-2.0
// A timer's signal handler forks while the program forks in a loop. The timer's delay changes each
// time, so the signal comes at every point of fork(): before the first prepare handler, between two
// of them, as soon as the child exists, and between the parent handlers. The handler's child
// returns from the handler and finishes the fork that the signal interrupted.
//
// Modes: timer (timer_create), itimer (setitimer), fast (setitimer with an interval, in which the
// handler can fork once: if it were shorter, the program would never go on).
#include <sys/time.h>

#include <algorithm>

#include "harm.h"

namespace {

constexpr int kForks = 1000;
constexpr int kSteps = 61;  // different delays

pid_t program;
std::atomic<long> prepared{0};
std::atomic<long> continued{0};
std::atomic<long> handled{0};
timer_t timer;
long interval_us = 500;

// The next signal comes only after this handler has finished its work.
void on_timer(int) {
  const int saved = errno;
  const pid_t child = harm::bounded_fork();
  if (child > 0) {
    ++handled;
    harm::reap_well(child);
  }
  errno = saved;
}

void start_timer(double seconds) {
  const long ns = static_cast<long>(seconds * 1e9) + 1;
  if (harm::mode_is("timer")) {
    itimerspec when = {};
    when.it_value.tv_nsec = ns;
    timer_settime(timer, 0, &when, nullptr);
  } else {
    itimerval when = {};
    when.it_value.tv_usec = ns / 1000 + 1;
    if (harm::mode_is("fast")) when.it_interval.tv_usec = interval_us;
    setitimer(ITIMER_REAL, &when, nullptr);
  }
}

void stop_timer() {
  if (harm::mode_is("timer")) {
    const itimerspec never = {};
    timer_settime(timer, 0, &never, nullptr);
  } else {
    const itimerval never = {};
    setitimer(ITIMER_REAL, &never, nullptr);
  }
}

// A child that was forked in the handler and has returned from it gets here.
void end_if_child() {
  if (getpid() != program) _exit(0);
}

void fork_disturbed(double seconds) {
  start_timer(seconds);
  const pid_t child = harm::bounded_fork();
  if (child == 0) _exit(0);
  // In a child of the handler: its own if the fork had not yet been made when it was interrupted.
  int status = 0;
  pid_t reaped;
  do {
    reaped = waitpid(child, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  end_if_child();
  harm::expect(reaped == child && status == 0, "the child of the disturbed fork");
  stop_timer();
  end_if_child();
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 40L * kForks);
  program = getpid();
  for (int i = 0; i < 3; ++i) {
    pthread_atfork([] { ++prepared; }, [] { ++continued; }, [] {});
  }
  const double start = harm::now();
  for (int i = 0; i < 50; ++i) {
    const pid_t child = harm::bounded_fork();
    if (child == 0) _exit(0);
    harm::reap_well(child);
  }
  const double one_fork = (harm::now() - start) / 50;
  interval_us = std::max(interval_us, static_cast<long>(1.5e6 * one_fork));

  const int number = harm::mode_is("timer") ? SIGRTMIN : SIGALRM;
  harm::on_signal(number, on_timer);
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = number;
  if (harm::mode_is("timer")) timer_create(CLOCK_MONOTONIC, &event, &timer);
  for (int i = 0; i < kForks * harm::times; ++i) {
    fork_disturbed(one_fork * (i % kSteps) / (kSteps * 0.8));
  }
  harm::expect(handled > 0, "the handler never ran");
  harm::expect(prepared == continued, "each prepare handler has its parent handler");
  harm::say("%d forks of the program, and the handler's, ended well", kForks);
  return 0;
}
