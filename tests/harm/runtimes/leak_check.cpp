// SPDX-License-Identifier: Apache-2.0
// A program that is checked for leaks (-fsanitize=address): what GNU OpenMP has allocated for the
// forking thread is no leak in a child.
#include <omp.h>

#include "program.h"

int main() {
  omp_set_num_threads(3);
#pragma omp parallel
  usleep(100);
  const pid_t child = fork();
  if (child == 0) exit(omp_get_max_threads() == 3 ? 0 : 2);
  harm::require_success(child, 20, "a child that is checked for leaks at its exit");
  _exit(0);
}
