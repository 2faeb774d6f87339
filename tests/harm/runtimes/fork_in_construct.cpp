// SPDX-License-Identifier: Apache-2.0
// A fork inside a construct that stands outside of every parallel region, where omp_get_level() is
// 0. The child goes on after the construct, and the program forks exactly once.
//
//   fork_in_construct task|thread-task|teams|target
//
// With thread-task, the task runs in another thread than the program's first one.
#include <omp.h>

#include <cstring>
#include <thread>

#include "program.h"

namespace {

using namespace harm;

// Stops the program if it becomes a fork bomb.
constexpr int kMostForks = 6;
std::atomic<int>* forks;

pid_t fork_once() {
  if (forks->fetch_add(1) >= kMostForks) finish(1, "more than %d forks", kMostForks);
  return fork();
}

pid_t in_task() {
  pid_t child = -1;
#pragma omp task shared(child)
  child = fork_once();
  return child;
}

pid_t in_task_of_thread() {
  pid_t child = -1;
  std::thread([&] {
    child = in_task();
    if (child == 0) _exit(0);
  }).join();
  return child;
}

pid_t in_teams() {
  pid_t child = -1;
#if __GNUC__ >= 9
#pragma omp teams num_teams(3) shared(child)
  {
    if (omp_get_team_num() == 1) child = fork_once();
  }
#else
  finish(77, "no teams on the host in this compiler");
#endif
  return child;
}

pid_t in_target() {
  pid_t child = -1;
  omp_set_default_device(omp_get_initial_device());
#pragma omp target map(tofrom : child)
  child = fork_once();
  return child;
}

}  // namespace

int main(int argc, char** argv) {
  const struct {
    const char* name;
    pid_t (*run)();
  } constructs[] = {{"task", in_task},
                    {"thread-task", in_task_of_thread},
                    {"teams", in_teams},
                    {"target", in_target}};
  limit_processor_time(60);
  forks = shared<std::atomic<int>>();
  for (const auto& construct : constructs) {
    if (argc != 2 || strcmp(argv[1], construct.name) != 0) continue;
    const pid_t child = construct.run();
    if (child == 0) _exit(0);
    require_success(child, 10, "the child");
    if (*forks != 1) finish(1, "one fork is written, %d were made", forks->load());
    return 0;
  }
  finish(2, "usage: fork_in_construct task|thread-task|teams|target");
}
