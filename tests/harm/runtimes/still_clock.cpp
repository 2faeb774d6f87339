// SPDX-License-Identifier: Apache-2.0
// The program's clock stands still, as under libfaketime with an absolute time. A prepare handler
// waits for a thread that computes.
//
//   still_clock LIBRARY [PREFIX [SUFFIX]]
#include <pthread.h>
#include <time.h>

#include <atomic>
#include <thread>

#include "program.h"

/// All libraries call this one, since the program exports it.
extern "C" int clock_gettime(clockid_t, timespec* time) noexcept {
  *time = {1000000, 0};
  return 0;
}

namespace {

using namespace harm;

std::atomic<bool> wanted{false};
std::atomic<bool> computed{false};

void flush() {
  wanted = true;
  while (!computed) usleep(100);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) finish(2, "usage: still_clock LIBRARY [PREFIX [SUFFIX]]");
  const double start = now();
  usleep(1000);
  if (now() > start) finish(2, "the clock moves");
  alarm(30);
  const Blas blas(argv[1], argc > 2 ? argv[2] : "", argc > 3 ? argv[3] : "");
  Product product(blas, 200);
  if (!product.exact()) finish(2, "the parent computes wrongly");
  pthread_atfork(flush, nullptr, nullptr);
  std::thread([&] {
    while (!wanted) usleep(100);
    computed = product.exact();
  }).detach();
  const pid_t child = fork();
  if (child == 0) _exit(0);
  int status = -1;
  if (waitpid(child, &status, 0) != child || status != 0) finish(1, "the child ended badly");
  finish(0, "forked");
}
