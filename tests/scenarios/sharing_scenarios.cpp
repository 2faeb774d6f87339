// SPDX-License-Identifier: Apache-2.0
// FORKSAFE_CHILD_THREADS=auto: how many threads each runtime uses in children that share the
// processors.
#include <catch2/catch.hpp>

#include "setting.h"

using namespace forksafe_test;

namespace {

// siblings.cpp ends with an error if a check does not hold within --seconds. Without the library
// the time is short, because children never get a share. With the library it is long, so the test
// also passes on a busy machine.
// `held`: how many checks hold at least.
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
  // The children must share all processors, whatever number of threads forker() sets.
  command.environment.erase("OMP_NUM_THREADS");
  return command;
}

// How many of the checks are about numbers that a program sets. Only linkers for x86 keep the
// symbol table out of the pages with code. Elsewhere siblings.cpp finds out whether it makes these
// checks.
#if defined(__x86_64__) || defined(__i386__)
constexpr int kAboutSetting = 6;
#else
constexpr int kAboutSetting = 0;
#endif

}  // namespace

TEST_CASE("children share the processors") {
  prove_sharing(siblings(blas_under_test(), "openblas"), 18 + kAboutSetting);
}

TEST_CASE("children share the processors: a library that they load themselves") {
  Command command = siblings(blas_by_name("debian"), "openblas");
  command.arguments.emplace_back("--load-in-child=yes");
  prove_sharing(command, 19 + kAboutSetting);
}

TEST_CASE("children share the processors: BLIS") {
  Command command = siblings(blas_by_name("blis-openmp"), "blis");
  prove_sharing(command, 18 + kAboutSetting);
}

TEST_CASE("children share the processors: regions of GNU OpenMP") {
  Command command;
  command.arguments = {"", "--runtime=openmp"};
  prove_sharing(command, 17);
}
