// SPDX-License-Identifier: Apache-2.0
// Time per dgemm in a loop, with one or more calling threads.
//
//   dgemm_loop --blas=PATH [--prefix=scipy_] [--suffix=64_] [--n=64] [--callers=1] [--ms=300]
//
// One line of JSON. `us`: with one caller the median over short batches, which leaves out what else
// ran on the machine; with more, elapsed time over all calls, as each waits for the others.
// `cpu_us`: what the whole process, the pool's threads among it, spent on each call. That is the
// steadier one on a busy machine, and the less telling one where threads wait for each other.
#include <atomic>
#include <thread>

#include "bench.h"

namespace {

using bench::Blas;
using bench::Matrices;

constexpr double kBatchUs = 3000;

// Calls per batch of about kBatchUs.
int size_batch(const Blas& blas, Matrices* matrices) {
  // The first calls start the pool and map its buffers.
  for (int i = 0; i < 20; ++i) matrices->multiply(blas);
  int calls = 1;
  for (;;) {
    const double begin = bench::now_us();
    for (int i = 0; i < calls; ++i) matrices->multiply(blas);
    const double us = bench::now_us() - begin;
    if (us >= kBatchUs / 4) return std::max(1, static_cast<int>(calls * kBatchUs / us));
    calls *= 2;
  }
}

struct Times {
  double us;
  double cpu_us;
};

double cpu_us() { return bench::clock_us(CLOCK_PROCESS_CPUTIME_ID); }

Times time_alone(const Blas& blas, int n, double total_us) {
  Matrices matrices(n);
  const int batch = size_batch(blas, &matrices);
  std::vector<double> us;
  std::vector<double> cpu;
  const double end = bench::now_us() + total_us;
  double begin;
  while ((begin = bench::now_us()) < end) {
    const double cpu_begin = cpu_us();
    for (int i = 0; i < batch; ++i) matrices.multiply(blas);
    cpu.push_back((cpu_us() - cpu_begin) / batch);
    us.push_back((bench::now_us() - begin) / batch);
  }
  return {bench::quantile(us, 0.5), bench::quantile(cpu, 0.5)};
}

Times time_together(const Blas& blas, int n, int callers, double total_us) {
  std::atomic<bool> stop{false};
  std::atomic<bool> count{false};
  std::vector<long> calls(static_cast<size_t>(callers), 0);
  std::vector<std::thread> threads;
  for (long& own : calls) {
    threads.emplace_back([&, slot = &own] {
      Matrices matrices(n);
      long done = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        matrices.multiply(blas);
        if (count.load(std::memory_order_relaxed)) ++done;
      }
      *slot = done;
    });
  }
  bench::sleep_us(50000);  // all are under way
  const double begin = bench::now_us();
  const double cpu_begin = cpu_us();
  count.store(true);
  bench::sleep_us(static_cast<long>(total_us));
  stop.store(true);
  const double elapsed = bench::now_us() - begin;
  const double cpu = cpu_us() - cpu_begin;
  long total = 0;
  for (std::thread& thread : threads) thread.join();
  for (const long own : calls) total += own;
  const auto count_or_one = static_cast<double>(std::max(1L, total));
  return {elapsed / count_or_one, cpu / count_or_one};
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const int n = options.number("n", 64);
  const int callers = options.number("callers", 1);
  const double total_us = options.number("ms", 300) * 1000.0;
  const Blas blas(options);
  const Times times = callers == 1 ? time_alone(blas, n, total_us)
                                   : time_together(blas, n, callers, total_us);
  printf("{\"n\": %d, \"callers\": %d, \"pool\": %d, \"us\": %.5f, \"cpu_us\": %.5f}\n", n, callers,
         blas.threads(), times.us, times.cpu_us);
}
