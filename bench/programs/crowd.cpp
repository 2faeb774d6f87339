// SPDX-License-Identifier: Apache-2.0
// A process with many threads, deep stacks and many loaded objects, for `forksafe list` and
// `diagnose` to inspect.
//
//   crowd --object=FILE --folder=EMPTY_FOLDER [--objects=300] [--threads=200] [--depth=20]
//         [--children=0]
//
// Copies FILE into the folder and loads each copy. Half of the threads are a pool of GNU OpenMP.
// The others wait at the end of a chain of calls through the copies. Each child has 7 threads that
// wait in the same way, and its main thread is stuck in GNU OpenMP. Prints "ready" and waits until
// it is killed.
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "bench.h"

namespace {

using CallBack = void (*)(void (*)(int), int);
std::vector<CallBack> objects;
std::atomic<int> arrived{0};

void descend(int depth) {
  if (depth == 0) {
    ++arrived;
    for (;;) pause();
  }
  objects[static_cast<size_t>(depth * 7) % objects.size()](descend, depth - 1);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const int threads = options.number("threads", 200);
  for (void* library : bench::load_copies(options.text("object", ""), options.text("folder", ""),
                                          options.number("objects", 300))) {
    objects.push_back(reinterpret_cast<CallBack>(dlsym(library, "call_back")));
  }
  void* gomp = dlopen("libgomp.so.1", RTLD_NOW | RTLD_LOCAL);
  if (gomp == nullptr) bench::fail(dlerror());
  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  const auto parallel = reinterpret_cast<Parallel>(dlsym(gomp, "GOMP_parallel"));
  const auto half = static_cast<unsigned>(threads / 2);
  parallel([](void*) {}, nullptr, half, 0);

  const int own = threads - static_cast<int>(half);
  for (int i = 0; i < own; ++i) std::thread(descend, options.number("depth", 20)).detach();
  while (arrived.load() < own) std::this_thread::yield();
  for (int i = 0; i < options.number("children", 0); ++i) {
    if (fork() != 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int k = 0; k < 7; ++k) std::thread(descend, options.number("depth", 20)).detach();
    parallel([](void*) {}, nullptr, half, 0);
    _exit(1);
  }
  puts("ready");
  fflush(stdout);
  for (;;) pause();
}
