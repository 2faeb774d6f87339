// SPDX-License-Identifier: Apache-2.0
// A child's parallel regions never have more threads than its first region had, or than
// omp_get_max_threads has answered.
//
//   region_sizes region|question
//
// A child learns its number of threads, from inside its first region or by omp_get_max_threads, and
// sizes an array by it, while a sibling computes. Then the sibling ends, so that more processors
// are free. dyn-var is false, so the program may rely on the number (OpenMP 5.1, 2.6.1).
#include <omp.h>

#include <cstring>

#include "program.h"

namespace {

using namespace harm;

struct Shared {
  std::atomic<int> sibling_computes;
  std::atomic<int> sibling_may_end;
  std::atomic<int> sibling_is_gone;
};

void compute_beside(Shared* shared) {
  const double end = now() + 20;
  long regions = 0;
  while (shared->sibling_may_end == 0 && now() < end) {
#pragma omp parallel
    for (volatile int i = 0; i < 2000; i = i + 1) {
    }
    if (++regions == 100) shared->sibling_computes = 1;
  }
  _exit(0);
}

int learn(bool by_region) {
  if (!by_region) return omp_get_max_threads();
  int threads = 0;
#pragma omp parallel
  {
#pragma omp single
    threads = omp_get_num_threads();
  }
  return threads;
}

void rely_on_it(Shared* shared, bool by_region) {
  if (!wait_until(20, [&] { return shared->sibling_computes != 0; })) finish(2, "no sibling");
  const int threads = learn(by_region);
  shared->sibling_may_end = 1;
  constexpr size_t kGuard = 64;
  std::vector<long> counts(static_cast<size_t>(threads) + kGuard);
  if (!wait_until(20, [&] { return shared->sibling_is_gone != 0; })) finish(2, "sibling stays");
  int regions = 0;
  for (const double end = now() + 1.5; now() < end; ++regions) {
#pragma omp parallel
    {
      const int thread = omp_get_thread_num();
      ++counts[static_cast<size_t>(thread)];
      usleep(100);
    }
    for (size_t i = static_cast<size_t>(threads); i < counts.size(); ++i) {
      if (counts[i] != 0) {
        finish(1, "region %d wrote behind an array of %d", regions, threads);
      }
    }
  }
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) finish(2, "usage: region_sizes region|question");
  const bool by_region = strcmp(argv[1], "region") == 0;
  need_two_processors();
  limit_processor_time(60);
  auto* shared = harm::shared<Shared>();
  const pid_t sibling = fork();
  if (sibling == 0) compute_beside(shared);
  const pid_t child = fork();
  if (child == 0) rely_on_it(shared, by_region);
  require_success(sibling, 30, "the sibling");
  shared->sibling_is_gone = 1;
  require_success(child, 30, "the child");
}
