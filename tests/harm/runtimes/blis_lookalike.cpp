// SPDX-License-Identifier: Apache-2.0
// blis_lookalike LIBRARY: forks beside a library that has a dgemm_ and uses the same functions of
// pthreads as BLIS. One of its threads holds a mutex for as long as the process lives, so a fork
// that waits for the mutex waits for too long. This file is the program and the library.
#include <pthread.h>
#ifdef LIBRARY
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_barrier_t barrier;

static void* hold(void*) {
  pthread_mutex_lock(&mutex);
  pthread_barrier_wait(&barrier);
  for (;;) pause();
}

static void start() {
  pthread_barrier_init(&barrier, nullptr, 2);
  pthread_t thread;
  pthread_create(&thread, nullptr, hold, nullptr);
  pthread_barrier_wait(&barrier);
}

/// Returns 0 if the mutex is held.
extern "C" int dgemm_() {
  pthread_once(&once, start);
  return pthread_mutex_trylock(&mutex) == 0;
}
#else
#include "program.h"

int main(int argc, char** argv) {
  using namespace harm;
  void* const library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : nullptr;
  if (library == nullptr) finish(2, "%s", dlerror());
  const auto is_free = reinterpret_cast<int (*)()>(dlsym(library, "dgemm_"));
  if (is_free() != 0) finish(2, "nobody holds the mutex");
  const double begin = now();
  const pid_t child = fork();
  if (child == 0) _exit(is_free());
  require_success(child, 30, "the child");
  const double seconds = now() - begin;
  finish(seconds < 2 ? 0 : 1, "%.3f s", seconds);
}
#endif
