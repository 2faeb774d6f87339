// SPDX-License-Identifier: Apache-2.0
// The program asks for the number of threads before the fork. Regions in the children have that
// number.
//
//   number_from_parent start|region|grandparent
//
// The program divides its work by that number, as most programs do. Where it asks:
//   start         omp_get_max_threads in the initializer of a global
//   region        omp_get_num_threads inside a region of the parent
//   grandparent   omp_get_max_threads in the process whose grandchildren compute
// Two processes compute beside each other. If a region has another number of threads, parts of the
// sum are missing.
#include <omp.h>

#include <cstring>

#include "program.h"

namespace {

using namespace harm;

const char* mode = "";

int at_start() {
  // The initializer runs before main, so it can't see the arguments.
  const char* wanted = getenv("HARM_ASK_AT_START");
  return wanted != nullptr ? omp_get_max_threads() : 0;
}

int threads = at_start();

bool right_sum() {
  constexpr long kLength = 100000;
  long sum = 0;
#pragma omp parallel reduction(+ : sum)
  {
    const long thread = omp_get_thread_num();
    for (long i = kLength * thread / threads; i < kLength * (thread + 1) / threads; ++i) sum += 1;
  }
  return sum == kLength;
}

void compute() {
  int wrong = 0;
  int regions = 0;
  for (const double end = now() + 0.7; now() < end; ++regions) wrong += right_sum() ? 0 : 1;
  if (wrong != 0) finish(1, "parts of %d of %d sums are missing", wrong, regions);
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) finish(2, "usage: number_from_parent start|region|grandparent");
  mode = argv[1];
  need_two_processors();
  limit_processor_time(60);
  if (strcmp(mode, "start") == 0 && threads == 0) finish(2, "HARM_ASK_AT_START is not set");
  if (strcmp(mode, "region") == 0) {
#pragma omp parallel
    {
#pragma omp single
      threads = omp_get_num_threads();
    }
  }
  if (strcmp(mode, "grandparent") == 0) threads = omp_get_max_threads();
  pid_t children[2];
  for (pid_t& child : children) {
    child = fork();
    if (child != 0) continue;
    if (strcmp(mode, "grandparent") == 0) {
      const pid_t grandchild = fork();
      if (grandchild == 0) compute();
      require_success(grandchild, 20, "a grandchild");
      _exit(0);
    }
    compute();
  }
  for (const pid_t child : children) require_success(child, 30, "a child");
}
