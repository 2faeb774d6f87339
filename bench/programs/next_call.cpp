// SPDX-License-Identifier: Apache-2.0
// Measures a fork and the next BLAS call, in the parent or in the child. The pool sleeps at the
// fork.
//
//   next_call --blas=PATH [--prefix=scipy_] [--suffix=64_] [--threads=2]
//             [--who=parent|child|nobody]
//             [--forks=20] [--ms=1000] [--n=120]
//
// Prints one line of JSON: the time from the start of the fork to the end of the call, the time of
// the fork alone, and the parent's page faults meanwhile. With --who=parent the child exits at
// once. With --who=child the parent waits. With --who=nobody there is no fork, only the call.
//
// No fork begins after --ms, because with more threads than cores some builds spin for hundreds of
// milliseconds in one call. n is about the smallest for which OpenBLAS uses the pool, so the pool's
// own part of the time is large.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "bench.h"

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const bench::Blas blas(options);
  const std::string who = options.text("who", "parent");
  if (who != "parent" && who != "child" && who != "nobody") {
    bench::fail("--who=parent, --who=child or --who=nobody");
  }
  bench::Matrices matrices(options.number("n", 120));
  auto* end_of_child = static_cast<double*>(
      mmap(nullptr, sizeof(double), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (end_of_child == MAP_FAILED) bench::fail(std::string("mmap: ") + strerror(errno));

  blas.set_threads(options.number("threads", 2));
  matrices.multiply(blas);

  std::vector<double> us, fork_us, faults;
  const auto forks = static_cast<size_t>(options.number("forks", 20));
  const double end = bench::now_us() + options.number("ms", 1000) * 1000.0;
  while (us.size() <= forks && (us.size() <= 3 || bench::now_us() < end)) {
    bench::wait_for_sleep();
    const double faults_before = bench::page_faults(RUSAGE_SELF);
    const double begin = bench::now_us();
    if (who == "nobody") {
      matrices.multiply(blas);
      us.push_back(bench::now_us() - begin);
      continue;
    }
    const pid_t child = fork();
    const double forked = bench::now_us();
    if (child < 0) bench::fail(std::string("fork: ") + strerror(errno));
    if (child == 0) {
      if (who == "child") {
        matrices.multiply(blas);
        *end_of_child = bench::now_us();
      }
      _exit(0);
    }
    if (who == "parent") {
      matrices.multiply(blas);
      us.push_back(bench::now_us() - begin);
      fork_us.push_back(forked - begin);
      faults.push_back(bench::page_faults(RUSAGE_SELF) - faults_before);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) bench::fail("a child failed");
    if (who == "child") {
      us.push_back(*end_of_child - begin);
      matrices.multiply(blas);  // with stock, this makes the pool again before the next fork
    }
  }
  // Leave out the first fork, which has costs that later ones do not have.
  for (auto* values : {&us, &fork_us, &faults}) {
    if (!values->empty()) values->erase(values->begin());
  }
  printf("{\"us\": %s, \"fork_us\": %.1f, \"faults\": %.1f, \"pool\": %d}\n",
         bench::summary(us).c_str(), bench::quantile(fork_us, 0.5), bench::quantile(faults, 0.5),
         blas.threads());
}
