// SPDX-License-Identifier: Apache-2.0
// A prepare handler runs the forking thread's first parallel region. So the fork begins without a
// pool, but the process has a pool when it is copied. Without the library the child hangs in its
// own first region.
#include <pthread.h>

#include "program.h"

namespace {

using namespace harm;

int region_of_two() {
  int count = 0;
#pragma omp parallel num_threads(2) reduction(+ : count)
  count += 1;
  return count;
}

void prepare() { region_of_two(); }

}  // namespace

int main() {
  limit_processor_time(60);
  pthread_atfork(prepare, nullptr, nullptr);
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(region_of_two() == 2 ? 0 : 3);
    require_success(child, 5, "the child");
  }
}
