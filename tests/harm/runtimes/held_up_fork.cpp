// SPDX-License-Identifier: Apache-2.0
// A fork that is held up after all prepare handlers. glibc then takes stdio's lock, and may wait
// for it longer than BLAS calls in other threads wait for the fork. The child must not inherit the
// half-done state of a call that has gone on.
//
//   held_up_fork LIBRARY [PREFIX [SUFFIX]]
//
// One thread reads from a pipe and holds stdin's lock. Another thread is in fflush(nullptr), which
// holds the lock of all streams and waits for stdin's. The fork waits for the lock of all streams.
// Then a third thread starts a BLAS call. As soon as that call uses its processor, input comes to
// the pipe and ends the wait, so the call is in flight when the fork happens. Prints "a call went
// on" or, where calls wait for the end of the fork, "no call went on".
#include <pthread.h>
#include <time.h>

#include <thread>

#include "program.h"

namespace {

using namespace harm;

std::atomic<int> forking{0};
std::atomic<int> fork_is_over{0};

void note_prepare() { forking = 1; }

double processor_seconds(pthread_t thread) {
  clockid_t clock;
  timespec time = {};
  if (pthread_getcpuclockid(thread, &clock) == 0) clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) finish(2, "usage: held_up_fork LIBRARY [PREFIX [SUFFIX]]");
  limit_processor_time(120);
  const Blas blas(argv[1], argc > 2 ? argv[2] : "", argc > 3 ? argv[3] : "");
  pthread_atfork(note_prepare, nullptr, nullptr);
  int input[2];
  if (pipe(input) != 0 || dup2(input[0], STDIN_FILENO) < 0) finish(2, "pipe");
  Product product(blas, 200);
  if (!product.exact()) finish(2, "the parent computes wrongly");

  std::atomic<int> reading{0};
  std::thread([&] {
    reading = 1;
    getchar();
  }).detach();
  if (!wait_until(10, [&] { return reading != 0; })) finish(2, "no reader");
  usleep(100000);
  std::thread([] { fflush(nullptr); }).detach();
  usleep(100000);

  Product large(blas, 2500);
  bool went_on = false;
  std::thread conductor([&] {
    wait_until(10, [] { return forking != 0; });
    usleep(300000);  // past the other handlers, to the lock
    std::thread call([&] {
      while (fork_is_over == 0) large.compute();
    });
    const pthread_t handle = call.native_handle();
    const double start = processor_seconds(handle);
    went_on = wait_until(8, [&] { return processor_seconds(handle) > start + 0.03; });
    if (write(input[1], "x", 1) != 1) _exit(2);
    call.join();
  });

  const double begin = now();
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 3; ++i) {
      if (!product.exact()) finish(1, "the child computes wrongly");
    }
    _exit(0);
  }
  const double took = now() - begin;
  fork_is_over = 1;
  const int status = wait_status(child, 15);
  if (took < 0.3) finish(2, "the fork was not held up: %.2f s", took);
  conductor.join();
  fprintf(stderr, "%s call went on\n", went_on ? "a" : "no");
  if (status == kHung) finish(1, "the child HUNG");
  if (status != 0) finish(1, "the child ended with wait status %d", status);
  if (!product.exact()) finish(1, "the parent computes wrongly");
  _exit(0);
}
