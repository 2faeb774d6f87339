// SPDX-License-Identifier: Apache-2.0
// pool_forker hangs|works: forks 300 times while two threads compute with libpool. Each child
// computes too.
//
// `hangs` is right where at least one child waits for ever, `works` where all children and the
// parent compute exactly.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "pool.h"

namespace {

constexpr int kForks = 300, kCount = 20000;
long numbers[kCount];

bool is_exact() { return pool_sum(numbers, kCount) == long{kCount} * (kCount - 1) / 2; }

bool children_compute() {
  for (int i = 0; i < 3; ++i) {
    if (!is_exact()) return false;
  }
  return true;
}

enum class Outcome { kExact, kWrong, kHung };

Outcome fork_once(std::chrono::seconds limit) {
  const pid_t child = fork();
  if (child == 0) _exit(children_compute() ? 0 : 1);
  if (child < 0) return Outcome::kWrong;
  const auto end = std::chrono::steady_clock::now() + limit;
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > end) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return Outcome::kHung;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return status == 0 ? Outcome::kExact : Outcome::kWrong;
}

}  // namespace

int main(int argc, char** argv) {
  const bool hangs = argc == 2 && strcmp(argv[1], "hangs") == 0;
  for (int i = 0; i < kCount; ++i) numbers[i] = i;
  std::atomic<bool> stop{false}, exact{true};
  std::atomic<long> calls{0};
  const auto compute = [&] {
    while (!stop) {
      if (!is_exact()) exact = false;
      ++calls;
    }
  };
  std::thread first(compute), second(compute);
  int forks = 0, wrong = 0, hung = 0;
  while (forks < kForks && hung == 0) {
    const Outcome outcome = fork_once(std::chrono::seconds(hangs ? 2 : 20));
    ++forks;
    wrong += outcome == Outcome::kWrong;
    hung += outcome == Outcome::kHung;
  }
  stop = true;
  first.join();
  second.join();
  printf("%d forks: %d children hung, %d were wrong; %ld calls in the parent\n", forks, hung, wrong,
         calls.load());
  if (hangs) return hung != 0 ? 0 : 1;
  return forks == kForks && hung == 0 && wrong == 0 && exact && is_exact() ? 0 : 1;
}
