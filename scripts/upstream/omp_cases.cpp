// SPDX-License-Identifier: Apache-2.0
// Cases for scripts/upstream_patches.sh that tests/programs/omp_forker does not have:
//
// omp_cases CASE FORKS
//   Forks in a construct, outside of every active parallel region. Each child runs a region inside
//   that construct and one after it. Prints a dot for each child whose regions had whole teams.
// omp_cases regions N
//   Runs short regions in this process and in N generations of children. Prints how many regions a
//   second there were, and how often a thread slept in one (the best of 20 rounds).
// omp_cases chain N
//   Forks N generations, each the child of the one before, with a region in each. Prints how much
//   memory malloc has in use (mallinfo2(3)) after each fifth of them.
//
// Exit status 0: each region had its whole team.
#include <malloc.h>
#include <omp.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace {

constexpr int kThreads = 2;

double now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

[[noreturn]] void fail(const char* message) {
  fprintf(stderr, "%s\n", message);
  _exit(1);
}

bool team_is_whole() {
  int members = 0;
#pragma omp parallel num_threads(kThreads) reduction(+ : members)
  members += 1;
  return members == kThreads;
}

bool in_child = false;

// Forks inside a construct. The child goes on in the construct, the parent waits for the child.
void fork_here() {
  const pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    in_child = true;
    if (!team_is_whole()) _exit(3);
    return;
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) fail("a child failed");
}

void in_task() {
#pragma omp task
  fork_here();
}

void in_teams() {
#pragma omp teams num_teams(3)
  if (omp_get_team_num() == 1) fork_here();
}

void in_region_of_one_thread() {
  omp_set_max_active_levels(2);
#pragma omp parallel num_threads(1)
  fork_here();
}

void in_critical() {
#pragma omp critical
  fork_here();
}

// Runs on the host, because there is no device.
void in_target() {
#pragma omp target
  fork_here();
}

// libgomp ends a thread's pool when the thread ends. In the child that pool has no threads to wait
// for.
void in_thread_that_ends() {
  std::thread([] {
    if (!team_is_whole()) fail("a thread of the parent");
    const pid_t child = fork();
    if (child == 0) pthread_exit(nullptr);
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) fail("a child failed");
  }).join();
}

const struct {
  const char* name;
  void (*fork)();
} cases[] = {
    {"task", in_task},         {"teams", in_teams},   {"one-thread", in_region_of_one_thread},
    {"critical", in_critical}, {"target", in_target}, {"thread-ends", in_thread_that_ends},
};

void spin(double seconds) {
  for (const double end = now() + seconds; now() < end;) {
  }
}

void measure(int generation, int last) {
  constexpr int kRegions = 500;
  double most = 0;
  double fewest_sleeps = 1e9;
  for (int round = 0; round < 20; ++round) {
    rusage before;
    getrusage(RUSAGE_SELF, &before);
    const double start = now();
    for (int i = 0; i < kRegions; ++i) {
#pragma omp parallel num_threads(kThreads)
      spin(omp_get_thread_num() == 0 ? 5e-6 : 15e-6);
    }
    const double seconds = now() - start;
    rusage after;
    getrusage(RUSAGE_SELF, &after);
    const double sleeps = static_cast<double>(after.ru_nvcsw - before.ru_nvcsw) / kRegions;
    if (kRegions / seconds > most) most = kRegions / seconds;
    if (sleeps < fewest_sleeps) fewest_sleeps = sleeps;
  }
  printf("generation %d: %.0f regions a second, %.3f sleeps in a region\n", generation, most,
         fewest_sleeps);
  fflush(stdout);
  if (generation == last) return;
  const pid_t child = fork();
  if (child == 0) {
    measure(generation + 1, last);
    _exit(0);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) fail("a child failed");
}

void chain(int generations) {
  const int step = generations < 5 ? 1 : generations / 5;
  for (int generation = 0; generation <= generations; ++generation) {
    if (!team_is_whole()) fail("a generation");
    if (generation % step == 0) {
      printf("generation %d: %zu bytes in use\n", generation, mallinfo2().uordblks);
      fflush(stdout);
    }
    if (generation == generations) return;
    const pid_t child = fork();
    if (child == 0) continue;
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) fail("a child failed");
    _exit(0);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const char* name = argc == 3 ? argv[1] : "";
  const int count = argc == 3 ? atoi(argv[2]) : 0;
  if (count > 0 && strcmp(name, "regions") == 0) {
    measure(0, count);
    return 0;
  }
  if (count > 0 && strcmp(name, "chain") == 0) {
    chain(count);
    return 0;
  }
  for (const auto& one : cases) {
    if (count <= 0 || strcmp(name, one.name) != 0) continue;
    if (!team_is_whole()) fail("the parent");
    for (int i = 0; i < count; ++i) {
      one.fork();
      if (in_child) _exit(team_is_whole() ? 0 : 3);
      if (write(STDOUT_FILENO, ".", 1) != 1) fail("write");
    }
    return team_is_whole() ? 0 : 1;
  }
  fprintf(stderr, "usage: omp_cases CASE FORKS | omp_cases regions|chain GENERATIONS\n");
  return 2;
}
