// SPDX-License-Identifier: Apache-2.0
// Runs parallel regions of some microseconds, one after the other, and measures whether the team
// spins between them.
//
//   fine_regions [--who=alone|parent|child|grandchild] [--threads=2] [--regions=100] [--rounds=40]
//                [--ms=500]
//
// Prints one line of JSON: regions a second, and voluntary context switches in a region (sleeps),
// each from its best round. A round takes milliseconds, so on a busy machine some rounds are not
// disturbed. No round begins after --ms. GNU OpenMP counts the threads of its teams in a variable
// of the process, and stops spinning if they are more than the processors.
//
// --who says which process is measured. alone: one that never forks. parent: one that has forked.
// child, grandchild: one or two forks below a process that has had a team.
#include <omp.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "bench.h"

namespace {

struct Speed {
  double regions_per_second;
  double sleeps_per_region;
};

void work_us(double us) {
  for (const double end = bench::now_us() + us; bench::now_us() < end;) {
  }
}

// The load is uneven: one thread waits for the other in each region.
void regions(int count) {
  for (int i = 0; i < count; ++i) {
#pragma omp parallel
    work_us(omp_get_thread_num() == 0 ? 5 : 15);
  }
}

Speed measure(int count, int rounds, double most_us) {
  Speed best = {0, 1e9};
  const double end = bench::now_us() + most_us;
  for (int round = 0; round < rounds && (round < 5 || bench::now_us() < end); ++round) {
    rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    const double start = bench::now_us();
    regions(count);
    const double seconds = (bench::now_us() - start) * 1e-6;
    getrusage(RUSAGE_SELF, &after);
    best.regions_per_second = std::max(best.regions_per_second, count / seconds);
    best.sleeps_per_region =
        std::min(best.sleeps_per_region, static_cast<double>(after.ru_nvcsw - before.ru_nvcsw) /
                                             static_cast<double>(count));
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const std::string who = options.text("who", "alone");
  const int count = options.number("regions", 100);
  const int rounds = options.number("rounds", 40);
  const double most_us = options.number("ms", 500) * 1000.0;
  omp_set_num_threads(options.number("threads", 2));
  auto* speed = static_cast<Speed*>(
      mmap(nullptr, sizeof(Speed), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (speed == MAP_FAILED) bench::fail("mmap");

  const int generations = who == "child" ? 1 : who == "grandchild" ? 2 : 0;
  if (generations == 0 && who != "alone" && who != "parent") {
    bench::fail("--who=alone, parent, child or grandchild");
  }
  regions(100);
  const auto wait_for = [](pid_t child) {
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
      bench::fail("a child failed");
    }
  };
  if (who == "parent") {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    wait_for(child);
  }
  for (int generation = 0; generation < generations; ++generation) {
    const pid_t child = fork();
    if (child != 0) {
      wait_for(child);
      if (generation > 0) _exit(0);
      break;
    }
    regions(100);
    if (generation + 1 == generations) {
      *speed = measure(count, rounds, most_us);
      _exit(0);
    }
  }
  if (generations == 0) *speed = measure(count, rounds, most_us);
  printf("{\"regions_per_second\": %.0f, \"sleeps_per_region\": %.3f}\n", speed->regions_per_second,
         speed->sleeps_per_region);
}
