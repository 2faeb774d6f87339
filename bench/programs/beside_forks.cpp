// SPDX-License-Identifier: Apache-2.0
// Measures how fast a thread computes while another one forks in a loop, as a job launcher does.
//
//   beside_forks --blas=PATH [--n=600] [--every-us=5000] [--phases=10] [--phase-us=150000]
//   [--threads=2]
//
// A thread calls dgemm all the time. The main thread takes turns: in one phase it sleeps, in the
// next it forks a child, which ends at once, every --every-us. Prints one line of JSON: the calls
// per second without forks, the share of that speed that is left beside forks, and the forks per
// second.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "bench.h"

namespace {

void fork_once() {
  const pid_t child = fork();
  if (child < 0) bench::fail(std::string("fork: ") + strerror(errno));
  if (child == 0) _exit(0);
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) bench::fail("a child failed");
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const int n = options.number("n", 600);
  const int every_us = options.number("every-us", 5000);
  const int phases = options.number("phases", 10);
  const int phase_us = options.number("phase-us", 150000);
  const bench::Blas blas(options);
  blas.set_threads(options.number("threads", 2));

  std::atomic<bool> stop{false};
  std::atomic<long> calls{0};
  std::thread computing([&] {
    bench::Matrices matrices(n);
    while (!stop.load()) {
      matrices.multiply(blas);
      calls.fetch_add(1);
    }
  });
  bench::sleep_us(phase_us);

  long forks = 0;
  const auto calls_per_second = [&](bool with_forks) {
    const long before = calls.load();
    const double begin = bench::now_us();
    if (!with_forks) bench::sleep_us(phase_us);
    while (bench::now_us() - begin < phase_us) {
      fork_once();
      ++forks;
      bench::sleep_us(every_us);
    }
    return static_cast<double>(calls.load() - before) / (bench::now_us() - begin) * 1e6;
  };
  std::vector<double> alone;
  std::vector<double> shares;
  double forking_us = 0;
  for (int phase = 0; phase < phases; ++phase) {
    alone.push_back(calls_per_second(false));
    const double begin = bench::now_us();
    shares.push_back(calls_per_second(true) / alone.back());
    forking_us += bench::now_us() - begin;
  }
  stop.store(true);
  computing.join();
  printf("{\"calls_per_second\": %s, \"share\": %s, \"forks_per_second\": %.1f}\n",
         bench::summary(alone).c_str(), bench::summary(shares).c_str(),
         static_cast<double>(forks) / forking_us * 1e6);
}
