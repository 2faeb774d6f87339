// SPDX-License-Identifier: Apache-2.0
// stuck_at PID: says in one line where a process waits inside a BLAS or OpenMP runtime. Exit status
// 1 when it does not, or can't be looked at. With --stacks: all frames of all threads.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "stack.h"

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "--stacks") == 0) {
    for (const auto& stack : forksafe_test::read_stacks(atoi(argv[2]))) {
      printf("thread %d\n", stack.tid);
      for (const auto& frame : stack.frames) {
        printf("  %s (%s)\n", frame.function.c_str(), frame.object.c_str());
      }
    }
    return 0;
  }
  if (argc != 2 || atoi(argv[1]) <= 0) {
    fputs("usage: stuck_at [--stacks] PID\n", stderr);
    return 2;
  }
  const std::string place = forksafe_test::where_stuck(atoi(argv[1]));
  if (place.empty()) return 1;
  printf("waits in %s\n", place.c_str());
  return 0;
}
