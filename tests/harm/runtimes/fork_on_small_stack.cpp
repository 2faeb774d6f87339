// SPDX-License-Identifier: Apache-2.0
// A crash handler forks, as those do that start a debugger, on an alternate stack of 8192 bytes
// (SIGSTKSZ of old). It is the first fork of a process that has GNU OpenMP, and a BLAS if one is
// named.
//
//   fork_on_small_stack [LIBRARY]
#include <omp.h>
#include <sys/auxv.h>

#include <cstring>

#include "program.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

namespace {

constexpr size_t kStack = 8192;

void crash_handler(int) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  int status = -1;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) _exit(1);
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace harm;
  limit_processor_time(60);
  if (getauxval(AT_MINSIGSTKSZ) > kStack / 2) finish(77, "the signal's own frame needs the stack");
  if (argc > 1 && dlopen(argv[1], RTLD_NOW) == nullptr) finish(2, "%s", dlerror());
  if (omp_get_num_procs() < 1) finish(2, "omp_get_num_procs");
  // Inaccessible pages below the stack, more than any frame of the library could skip.
  constexpr size_t kGuard = 1 << 20;
  auto* below = static_cast<char*>(
      mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (below == MAP_FAILED || mprotect(below, kGuard, PROT_NONE) != 0) finish(2, "mmap");
  const stack_t stack = {below + kGuard, 0, kStack};
  if (sigaltstack(&stack, nullptr) != 0) finish(2, "sigaltstack");
  struct sigaction action = {};
  action.sa_handler = crash_handler;
  action.sa_flags = SA_ONSTACK | static_cast<int>(SA_RESETHAND);
  sigaction(SIGSEGV, &action, nullptr);
  raise(SIGSEGV);
  finish(2, "the signal was not handled");
}
