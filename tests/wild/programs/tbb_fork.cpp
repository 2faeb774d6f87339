// SPDX-License-Identifier: Apache-2.0
// A child uses TBB again and again after its parent has used it. Prints "ready" after the child's
// first answer.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <unistd.h>

#include <atomic>

namespace {

long use() {
  std::atomic<long> sum{0};
  tbb::parallel_for(0, 1'000'000, [&](int i) { sum += i; });
  return sum;
}

}  // namespace

int main() {
  const tbb::global_control threads(tbb::global_control::max_allowed_parallelism, 3);
  const long expected = use();
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (bool first = true; use() == expected; first = false) {
      if (first && write(STDOUT_FILENO, "ready\n", 6) < 0) break;
    }
    _exit(1);
  }
  waitpid(child, nullptr, 0);
  return 1;
}
