// SPDX-License-Identifier: Apache-2.0
// OpenBLAS, each build that people have: FORKSAFE_TEST_BLAS names it. Every case runs the same
// program without the library, where it hangs, crashes or loses its pool, and with it.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>

#include "setting.h"

using namespace forksafe_test;

namespace {

void prove_forker(const Blas& blas, const std::vector<std::string>& arguments, int forks) {
  std::vector<std::string> all = arguments;
  all.push_back("--forks=" + std::to_string(forks));
  const Command command = forker(blas, all);
  prove(command, command, forks);
}

}  // namespace

TEST_CASE("idle, the parent keeps its pool and children compute with all threads") {
  const Blas blas = blas_under_test();
  // Without the library an OpenMP build hangs in the first child. The others tear their pool down
  // at each fork, and 20 forks show it as well as 300.
  const auto command = [&](const char* forks) {
    return forker(blas, {"--child-threads-at-end=2", "--threads-after=2", forks});
  };
  prove(command("--forks=20"), command("--forks=300"), 300);
}

TEST_CASE("one call in flight") {
  prove_forker(blas_under_test(), {"--flight=1", "--child-threads-at-end=2"}, 200);
}

TEST_CASE("three calls in flight") {
  prove_forker(blas_under_test(), {"--flight=3", "--child-threads-at-end=2"}, 100);
}

TEST_CASE("three small calls in flight") {
  prove_forker(blas_under_test(), {"--flight=3", "--n=128"}, 100);
  // OpenBLAS computes n = 64 with one thread: what could hang is the memory allocator's lock,
  // which is too rare to be expected without the library.
  expect_success(forker(blas_under_test(), {"--flight=3", "--n=64", "--forks=300"}), 300);
}

TEST_CASE("three large calls in flight") {
  prove_forker(blas_under_test(), {"--flight=3", "--n=600"}, 30);
}

TEST_CASE("LU in flight") {
  prove_forker(blas_under_test(), {"--flight=2", "--op=lu", "--n=200"}, 25);
}

TEST_CASE("LU beside products in flight") {
  prove_forker(blas_under_test(), {"--flight=3", "--flight-op=lu", "--flight-n=250"}, 50);
}

TEST_CASE("SVD beside products in flight") {
  const Blas blas = blas_under_test();
  prove_forker(blas, {"--flight=2", "--op=svd", "--n=40", "--flight-op=gemm", "--flight-n=200"},
               20);
}

TEST_CASE("a fork from another thread") {
  prove_forker(blas_under_test(), {"--flight=2", "--from=thread"}, 100);
}

TEST_CASE("two threads fork at once") {
  prove_forker(blas_under_test(), {"--flight=1", "--from=both"}, 150);
}

TEST_CASE("25 generations with 32 threads each") {
  const Blas blas = blas_under_test();
  std::vector<std::string> arguments = {"--nest=25", "--threads=32"};
  // Idle, a chain of forks hangs without the library on OpenMP only.
  if (!blas.openmp) arguments.push_back("--flight=1");
  const Command command = forker(blas, arguments);
  prove(command, command, 26);
}

// What OpenBLAS's own tests do: children of children, each beside its parent, with large products;
// and another number of threads between forks. On its own threads, idle, it does both right.
TEST_CASE("three generations at once with large products") {
  const Blas blas = blas_under_test();
  const Command command = forker(blas, {"--nest=2", "--beside=yes", "--n=1000"});
  if (blas.openmp) expect_trouble(command);
  expect_success(command, 3);
}

TEST_CASE("another number of threads at each fork") {
  const Blas blas = blas_under_test();
  for (const char* child : {"compute", "nothing"}) {
    const Command command =
        forker(blas, {"--threads-in-turn=1,2,4", "--forks=60", std::string("--child=") + child});
    if (blas.openmp && std::string(child) == "compute") expect_trouble(command);
    expect_success(command, 60);
  }
}

TEST_CASE("40 calls in flight") {
  // 0.3.27 to 0.3.29 count CPU_AVAILABLE down: children of so busy a parent wait for it for ever.
  prove_forker(blas_under_test(), {"--flight=40"}, 20);
}

TEST_CASE("children that exec, exit or never touch BLAS") {
  const Blas blas = blas_under_test();
  for (const char* child : {"exec", "exit", "nothing"}) {
    const Command command =
        forker(blas, {"--flight=2", std::string("--child=") + child, "--forks=100"});
    // An OpenMP build leaves such children alone: only exit() after computing fails.
    if (!blas.openmp || std::string(child) == "exit") expect_trouble(command);
    expect_success(command, 100);
  }
}

TEST_CASE("children start with empty buffers") {
  prove_forker(blas_under_test(), {"--child=look"}, 300);
}

TEST_CASE("lazily bound") {
  prove_forker(blas_under_test(), {"--flight=1", "--binding=lazy"}, 100);
}

TEST_CASE("loaded at start") {
  const Blas blas = blas_under_test();
  Command command = forker(blas, {"--blas=", "--flight=1", "--forks=100"});
  command.environment["LD_PRELOAD"] = blas.path;
  prove(command, command, 100);
}

TEST_CASE("closed, then fork") {
  // The handler must not run in an object that is gone, and nobody else's either: without the
  // library an OpenMP build crashes, as its runtime goes from under its own threads.
  const Command command =
      forker(blas_under_test(), {"--close=yes", "--child=nothing", "--forks=50"});
  printf("without: %s\n", run(command).describe().c_str());
  expect_success(command, 50);
}

TEST_CASE("two builds in one process") {
  const std::string other = "--also=" + blas_by_name("numpy-2.4").path;
  const Command command = forker(blas_by_name("numpy-2.2"), {"--flight=1", "--forks=100", other});
  prove(command, command, 100);
}

TEST_CASE("ten copies in one process") {
  const Blas blas = blas_under_test();
  // Some 250 MB: not in a temporary folder that may be memory.
  const std::filesystem::path folder = program("copies-" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  std::string copies;
  for (int i = 0; i < 9; ++i) {
    const auto copy = folder / ("copy" + std::to_string(i) + ".so");
    std::filesystem::copy_file(blas.path, copy);
    copies += (i == 0 ? "" : ":") + copy.string();
  }
  prove_forker(blas, {"--flight=1", "--also=" + copies, "--child-threads-at-end=11"}, 20);
  std::filesystem::remove_all(folder);
}
