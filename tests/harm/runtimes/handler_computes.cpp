// SPDX-License-Identifier: Apache-2.0
// A prepare handler that needs BLAS does not make fork() slow.
//
//   handler_computes own|queue COUNT LIBRARY [PREFIX [SUFFIX]]
//
// own: the handler computes COUNT products itself. queue: it gives them to another thread and
// waits, as libraries do that flush their work before a fork. fork() may take 0.25 s, or on a busy
// machine as long as the same products took just before. The fastest of several forks counts.
#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "program.h"

namespace {

using namespace harm;

constexpr double kMostSeconds = 0.25;
constexpr double kTryFor = 8;

int count;
Product* product;

void compute_in_handler() {
  for (int i = 0; i < count; ++i) product->compute();
}

std::mutex lock;
std::condition_variable changed;
int queued;

void work() {
  for (;;) {
    {
      std::unique_lock<std::mutex> held(lock);
      changed.wait(held, [] { return queued > 0; });
    }
    product->compute();
    const std::lock_guard<std::mutex> held(lock);
    if (--queued == 0) changed.notify_all();
  }
}

void drain() {
  std::unique_lock<std::mutex> held(lock);
  queued = count;
  changed.notify_all();
  changed.wait(held, [] { return queued == 0; });
  held.release();  // until after the fork
}
void release() { lock.unlock(); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) finish(2, "usage: handler_computes own|queue COUNT LIBRARY [PREFIX [SUFFIX]]");
  limit_processor_time(60);
  const bool own = strcmp(argv[1], "own") == 0;
  count = atoi(argv[2]);
  const Blas blas(argv[3], argc > 4 ? argv[4] : "", argc > 5 ? argv[5] : "");
  Product storage(blas, 200);
  product = &storage;
  if (!product->exact()) finish(2, "the parent computes wrongly");
  if (own) {
    pthread_atfork(compute_in_handler, nullptr, nullptr);
  } else {
    pthread_atfork(drain, release, release);
    std::thread(work).detach();
  }
  const double end = now() + kTryFor;
  double took, allowed;
  do {
    const double start = now();
    for (int i = 0; i < count; ++i) product->compute();
    allowed = std::max(kMostSeconds, now() - start);
    const double begin = now();
    const pid_t child = fork();
    if (child == 0) _exit(0);
    took = now() - begin;
    require_success(child, 20, "a child");
  } while (took > allowed && now() < end);
  if (took > allowed) finish(1, "fork() took %.3f s", took);
  fprintf(stderr, "fork() took %.3f s\n", took);
  fflush(stderr);
  _exit(0);
}
