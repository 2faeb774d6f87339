// SPDX-License-Identifier: Apache-2.0
// BLIS. FORKSAFE_TEST_BLAS names the build under test.
#include <catch2/catch.hpp>

#include "setting.h"

using namespace forksafe_test;

namespace {

// Small products, each with one thread. Each call holds a mutex for microseconds, and a child that
// inherits the mutex locked hangs. Without the library about one fork in 100 finds it locked, on a
// busy machine one in 1000.
void prove_in_flight(Command command) {
  for (const char* option : {"--threads=1", "--flight=3", "--n=64", "--flight-n=16"}) {
    command.arguments.push_back(option);
  }
  command.environment["BLIS_NUM_THREADS"] = "1";
  command.environment["OMP_NUM_THREADS"] = "1";
  Command with = command;
  command.arguments.push_back("--forks=10000");
  command.environment["FORKSAFE_TEST_MOST_FORKS"] = "10000";  // also where that limits all others
  with.arguments.push_back("--forks=1000");
  prove(command, with, 1000);
}

}  // namespace

TEST_CASE("BLIS idle") {
  const Blas blas = blas_under_test();
  const Command command = forker(blas, {"--forks=300"});
  // On pthreads BLIS starts new threads for each call, so it has no pool that a fork could lose.
  if (blas.openmp) expect_trouble(command);
  expect_success(command, 300);
}

TEST_CASE("BLIS in flight") { prove_in_flight(forker(blas_under_test(), {})); }

TEST_CASE("BLIS loaded at start, in flight") {
  const Blas blas = blas_under_test();
  Command command = forker(blas, {"--blas="});
  command.environment["LD_PRELOAD"] = blas.path;
  prove_in_flight(command);
}

TEST_CASE("BLIS in flight, two threads a call") {
  const Blas blas = blas_under_test();
  // BLIS's threads spin at barriers and never yield. If there are more threads than cores, each
  // barrier may cost a time slice, and a child half a second (in 0.8.0 on a processor that it
  // doesn't know, in 1.1 and in 2.1).
  const Command command = forker(blas, {"--flight=3", "--n=64", "--flight-n=32", "--forks=50"});
  if (blas.openmp) expect_trouble(command);
  expect_success(command, 50);
}
