// SPDX-License-Identifier: Apache-2.0
// Another library's child handler calls omp_set_num_threads. The child keeps that number, and has
// the parent's values in the variables that no handler has set.
//
//   handler_sets_threads early|late pool|no-pool NUMBER
//
// The handler sets NUMBER; early: it is registered in a constructor, late: in main, after GNU
// OpenMP has been used.
#include <omp.h>
#include <pthread.h>

#include <cstring>

#include "program.h"

namespace {

using namespace harm;

int number = 0;

void set_number() { omp_set_num_threads(number); }

__attribute__((constructor)) void register_early(int argc, char** argv, char**) {
  if (argc > 3) number = atoi(argv[3]);
  if (argc > 1 && strcmp(argv[1], "early") == 0) {
    pthread_atfork(nullptr, nullptr, set_number);
  }
}

void look() {
  const int threads = omp_get_max_threads();
  if (threads != number) finish(1, "%d threads, its handler has set %d", threads, number);
  omp_sched_t kind;
  int chunk;
  omp_get_schedule(&kind, &chunk);
  if (kind != omp_sched_guided || chunk != 17) finish(1, "the schedule is not the parent's");
  if (omp_get_max_active_levels() != 3) finish(1, "max-active-levels is not the parent's");
  int members = 0;
#pragma omp parallel reduction(+ : members)
  members += 1;
  if (members != number) finish(1, "a region of %d threads", members);
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) finish(2, "usage: handler_sets_threads early|late pool|no-pool NUMBER");
  limit_processor_time(60);
  omp_set_num_threads(4);
  omp_set_schedule(omp_sched_guided, 17);
  omp_set_max_active_levels(3);
  if (strcmp(argv[2], "pool") == 0) {
#pragma omp parallel
    usleep(100);
  }
  if (strcmp(argv[1], "late") == 0) pthread_atfork(nullptr, nullptr, set_number);
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) look();
    require_success(child, 10, "a child");
  }
  if (omp_get_max_threads() != 4) finish(1, "the parent's number has changed");
}
