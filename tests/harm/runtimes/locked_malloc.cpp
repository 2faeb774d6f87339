// SPDX-License-Identifier: Apache-2.0
// A program with an allocator of its own that has one lock and no fork handlers. Another thread is
// inside of it at nearly every fork, so a child may not call malloc. It doesn't: it asks OpenMP for
// its number of threads, and becomes another program.
//
//   locked_malloc
#include <omp.h>
#include <pthread.h>

#include <atomic>

#include "program.h"

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void __libc_free(void* memory);
}

namespace {

std::atomic_flag allocator = ATOMIC_FLAG_INIT;

struct Locked {
  Locked() {
    while (allocator.test_and_set()) sched_yield();
  }
  ~Locked() { allocator.clear(); }
};

void* allocate_slowly(void*) {
  for (;;) {
    {
      const Locked locked;
      usleep(2000);
    }
    usleep(100);
  }
}

}  // namespace

extern "C" {
void* malloc(size_t size) {
  const Locked locked;
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  const Locked locked;
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  const Locked locked;
  return __libc_realloc(memory, size);
}
void free(void* memory) {
  const Locked locked;
  __libc_free(memory);
}
}

int main() {
  using namespace harm;
  limit_processor_time(60);
  omp_set_num_threads(4);
  pthread_t thread;
  if (pthread_create(&thread, nullptr, allocate_slowly, nullptr) != 0) finish(1, "no thread");
  for (int i = 0; i < 100; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      if (omp_get_max_threads() != 4) _exit(1);
      execl("/bin/true", "true", nullptr);
      _exit(2);
    }
    require_success(child, 10, "a child that execs");
  }
  _exit(0);  // the other thread goes on
}
