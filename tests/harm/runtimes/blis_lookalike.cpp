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
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

int main(int argc, char** argv) {
  void* const library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : nullptr;
  if (library == nullptr) {
    fprintf(stderr, "blis_lookalike: %s\n", dlerror());
    return 2;
  }
  const auto is_free = reinterpret_cast<int (*)()>(dlsym(library, "dgemm_"));
  if (is_free() != 0) return 2;
  const auto begin = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) _exit(is_free());
  int status = 0;
  waitpid(child, &status, 0);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  printf("status %d after %.3f s\n", status, seconds.count());
  return status == 0 && seconds.count() < 2 ? 0 : 1;
}
#endif
