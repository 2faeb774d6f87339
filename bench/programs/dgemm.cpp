// SPDX-License-Identifier: Apache-2.0
// Measures the time of a dgemm call in a loop, with one or more calling threads, by Google
// Benchmark.
//
//   dgemm --blas=PATH [--prefix=scipy_] [--suffix=64_] [--n=64] [--callers=1] [--benchmark_...]
//
// real_time is the elapsed time divided by the number of calls of all callers. cpu_time is the CPU
// time of the whole process, with the pool's threads, for each call. On a busy machine cpu_time is
// steadier, but it says less if threads spin while they wait for each other.
#include <benchmark/benchmark.h>

#include "bench.h"

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const bench::Blas blas(options);
  const int n = options.number("n", 64);
  benchmark::RegisterBenchmark("dgemm",
                               [&](benchmark::State& state) {
                                 bench::Matrices matrices(n);
                                 // The first calls start the pool and map its buffers.
                                 for (int i = 0; i < 3; ++i) matrices.multiply(blas);
                                 for (auto _ : state) matrices.multiply(blas);
                               })
      ->Threads(options.number("callers", 1))
      ->UseRealTime()
      ->MeasureProcessCPUTime()
      ->Unit(benchmark::kMicrosecond);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
