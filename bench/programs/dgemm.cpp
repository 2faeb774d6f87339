// SPDX-License-Identifier: Apache-2.0
// Time per dgemm in a loop, with one or more calling threads, by Google Benchmark.
//
//   dgemm --blas=PATH [--prefix=scipy_] [--suffix=64_] [--n=64] [--callers=1] [--benchmark_...]
//
// real_time is that of one call; of several callers, elapsed time over all calls. cpu_time is what
// the whole process, the pool's threads among it, spent on each call: the steadier one on a busy
// machine, and the less telling one where threads wait for each other.
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
