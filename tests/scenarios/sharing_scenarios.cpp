// SPDX-License-Identifier: Apache-2.0
// FORKSAFE_CHILD_THREADS=auto: what each runtime does with a child's share.
#include <catch2/catch.hpp>

#include "setting.h"

using namespace forksafe_test;

namespace {

// siblings.cpp ends by itself where something does not hold in so many seconds: soon without the
// library, where children have all threads or none, and late with it, on a busy machine too.
void prove_sharing(Command command, int held) {
  command.arguments[0] = program("siblings");
  Command without = command;
  without.arguments.emplace_back("--seconds=2");
  expect_trouble(without);
  command.arguments.emplace_back("--seconds=40");
  command.environment["FORKSAFE_CHILD_THREADS"] = "auto";
  expect_success(command, held);
}

Command siblings(const Blas& blas, const std::string& runtime) {
  Command command = forker(blas, {"--runtime=" + runtime});
  // The tree's processors are what there is.
  command.environment.erase("OMP_NUM_THREADS");
  return command;
}

}  // namespace

TEST_CASE("children share the processors") {
  prove_sharing(siblings(blas_under_test(), "openblas"), 23);
}

TEST_CASE("children share the processors: a library that they load themselves") {
  Command command = siblings(blas_by_name("debian"), "openblas");
  command.arguments.emplace_back("--load-in-child=yes");
  prove_sharing(command, 24);
}

TEST_CASE("children share the processors: BLIS") {
  Command command = siblings(blas_by_name("blis-openmp"), "blis");
  prove_sharing(command, 23);
}

TEST_CASE("children share the processors: regions of GNU OpenMP") {
  Command command;
  command.arguments = {"", "--runtime=openmp"};
  prove_sharing(command, 17);
}
