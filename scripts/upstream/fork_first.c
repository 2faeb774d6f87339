// SPDX-License-Identifier: Apache-2.0
// A library to preload into a test of OpenMP. It runs a parallel region, forks, and calls the
// test's main in the child. The parent ends with the child's exit status. So every test of a
// runtime becomes a test of that runtime in a forked child. A program that has no GOMP_parallel
// runs unchanged.
//
// It relies on glibc's __libc_start_main, which the program's start code calls with its main.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int main_function(int, char**, char**);
typedef int start_function(main_function*, int, char**, void (*)(void), void (*)(void),
                           void (*)(void), void*);
typedef void parallel_function(void (*)(void*), void*, unsigned, unsigned);

static main_function* program_main;

static void count(void* counter) { __atomic_fetch_add((int*)counter, 1, __ATOMIC_RELAXED); }

static int main_in_child(int argc, char** argv, char** environment) {
  parallel_function* parallel = (parallel_function*)dlsym(RTLD_DEFAULT, "GOMP_parallel");
  if (!parallel) return program_main(argc, argv, environment);

  // Always four threads, whatever the environment says. With one there would be no pool to lose.
  int threads = 0;
  parallel(count, &threads, 4, 0);
  pid_t child = fork();
  if (child < 0) {
    perror("fork_first: fork");
    return 2;
  }
  if (child == 0) return program_main(argc, argv, environment);
  int status;
  if (waitpid(child, &status, 0) != child) {
    perror("fork_first: waitpid");
    return 2;
  }
  // Not exit(): only the child may run the program's exit handlers.
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int __libc_start_main(main_function* main, int argc, char** argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void* stack_end) {
  start_function* start = (start_function*)dlsym(RTLD_NEXT, "__libc_start_main");
  program_main = main;
  return start(main_in_child, argc, argv, init, fini, rtld_fini, stack_end);
}
