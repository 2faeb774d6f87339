// SPDX-License-Identifier: Apache-2.0
// BLIS: FORKSAFE_TEST_BLAS names the build.
#include <catch2/catch.hpp>

#include "setting.h"

using namespace forksafe_test;

TEST_CASE("BLIS idle") {
  const Blas blas = blas_under_test();
  const Command command = forker(blas, {"--forks=300"});
  // On pthreads it starts its threads anew for each call: nothing is left to hang.
  if (blas.openmp) expect_trouble(command);
  expect_success(command, 300);
}

TEST_CASE("BLIS in flight") {
  // Small products: what hangs is a mutex that is held for microseconds, often.
  const Command command =
      forker(blas_under_test(), {"--flight=3", "--n=64", "--flight-n=32", "--forks=2000"});
  prove(command, command, 2000);
}

TEST_CASE("BLIS loaded at start, in flight") {
  const Blas blas = blas_under_test();
  Command command = forker(blas, {"--blas=", "--flight=3", "--n=64", "--forks=1000"});
  command.environment["LD_PRELOAD"] = blas.path;
  prove(command, command, 1000);
}
