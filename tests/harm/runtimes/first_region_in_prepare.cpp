// SPDX-License-Identifier: Apache-2.0
// A prepare handler has the forking thread's first parallel region: the pool is there at the fork,
// but was not when the fork began. Without the library the child hangs in its own first region.
#include <pthread.h>

#include "program.h"

namespace {

using namespace harm;

int members() {
  int count = 0;
#pragma omp parallel num_threads(2) reduction(+ : count)
  count += 1;
  return count;
}

void prepare() { members(); }

}  // namespace

int main() {
  limit_processor_time(60);
  pthread_atfork(prepare, nullptr, nullptr);
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(members() == 2 ? 0 : 3);
    require_success(child, 5, "the child");
  }
}
