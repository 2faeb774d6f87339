// SPDX-License-Identifier: Apache-2.0
// A program with an allocator of its own that has one lock and no fork handlers. Another thread
// holds that lock at nearly every fork, so a child that calls malloc hangs. The child calls no
// malloc: it asks OpenMP for its variables, and execs another program.
//
//   locked_malloc THREADS [keys]
//
// A child has THREADS threads. With "keys", the program makes so many keys of thread-local storage
// before it loads GNU OpenMP that glibc must allocate memory for the value of GNU OpenMP's key. The
// forking thread has not used OpenMP before.
#include <dlfcn.h>
#include <omp.h>
#include <pthread.h>

#include <atomic>
#include <cstring>

#include "libc_malloc.h"
#include "program.h"

namespace {

using namespace harm;

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

template <typename Function>
Function find(void* library, const char* name) {
  void* function = dlsym(library, name);
  if (function == nullptr) finish(1, "no %s", name);
  return reinterpret_cast<Function>(function);
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

int main(int argc, char** argv) {
  if (argc < 2) finish(2, "usage: locked_malloc THREADS [keys]");
  limit_processor_time(60);
  const int threads = atoi(argv[1]);
  const bool keys = argc > 2 && strcmp(argv[2], "keys") == 0;
  if (keys) {
    pthread_key_t key;
    for (int i = 0; i < 40; ++i) pthread_key_create(&key, nullptr);
  }
  void* library = dlopen("libgomp.so.1", RTLD_NOW);
  if (library == nullptr) finish(77, "no libgomp.so.1");
  const auto get_max_threads = find<int (*)()>(library, "omp_get_max_threads");
  const auto get_schedule = find<void (*)(omp_sched_t*, int*)>(library, "omp_get_schedule");
  const auto set_schedule = find<void (*)(omp_sched_t, int)>(library, "omp_set_schedule");
  if (!keys) {
    find<void (*)(int)>(library, "omp_set_num_threads")(threads);
    set_schedule(omp_sched_dynamic, 7);
    set_schedule(omp_sched_auto, 1);  // the chunk stays
  }
  omp_sched_t kind;
  int chunk;
  get_schedule(&kind, &chunk);

  pthread_t thread;
  if (pthread_create(&thread, nullptr, allocate_slowly, nullptr) != 0) finish(1, "no thread");
  for (int i = 0; i < 100; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      omp_sched_t kind_here;
      int chunk_here;
      get_schedule(&kind_here, &chunk_here);
      if (get_max_threads() != threads) _exit(1);
      if (kind_here != kind || chunk_here != chunk) _exit(3);
      execl("/bin/true", "true", nullptr);
      _exit(2);
    }
    require_success(child, 10, "a child that execs");
  }
  _exit(0);  // the other thread goes on
}
