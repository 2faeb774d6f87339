// SPDX-License-Identifier: Apache-2.0
// A program that has GNU OpenMP linked in (libgomp.a) and exports its symbols for plugins
// (-rdynamic) keeps its thread_local variables in children.
//
//   own_thread_locals SITUATION
//     no-pool         only the children run regions
//     pool            only the parent runs a region
//     region          both do; hangs without the library
#include <omp.h>

#include <cstring>

#include "program.h"

namespace {

using namespace harm;

thread_local int answer = 7;
thread_local int zero_at_start;
thread_local std::string name;
int counter;
#pragma omp threadprivate(counter)

void look(bool with_region) {
  if (answer != 42 || zero_at_start != 43 || counter != 44 || name.size() != 100) {
    finish(1, "answer=%d zero_at_start=%d counter=%d name of %zu: not the parent's", answer,
           zero_at_start, counter, name.size());
  }
  if (omp_get_max_threads() != 5) finish(1, "%d threads, not 5", omp_get_max_threads());
  if (with_region) {
    int members = 0;
#pragma omp parallel num_threads(2) reduction(+ : members)
    members += 1;
    if (members != 2) finish(1, "a region of %d threads", members);
  }
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) finish(2, "usage: own_thread_locals SITUATION");
  limit_processor_time(60);
  const bool pool = strcmp(argv[1], "no-pool") != 0;
  const bool with_region = strcmp(argv[1], "pool") != 0;
  // This call links the part of libgomp.a that sets the variables of a process, as any question
  // to OpenMP does.
  if (omp_get_max_threads() < 1) finish(2, "omp_get_max_threads");
  omp_set_num_threads(5);
  if (pool) {
#pragma omp parallel num_threads(2)
    usleep(100);
  }
  answer = 42;
  zero_at_start = 43;
  counter = 44;
  name.assign(100, 'x');  // on the heap
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) look(with_region);
    require_success(child, 10, "a child");
  }
}
