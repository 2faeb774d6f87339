// SPDX-License-Identifier: Apache-2.0
// OpenBLAS. FORKSAFE_TEST_BLAS names the build under test. Each case runs the same program twice:
// without the library, where it hangs, crashes or loses its pool, and with it.
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
  // Without the library an OpenMP build hangs in the first child. The other builds end their pool
  // at each fork, which 20 forks show as well as 100.
  const auto command = [&](const char* forks) {
    return forker(blas, {"--child-threads-at-end=2", "--threads-after=2", forks});
  };
  prove(command("--forks=20"), command("--forks=100"), 100);
}

TEST_CASE("one call in flight") {
  prove_forker(blas_under_test(), {"--flight=1", "--child-threads-at-end=2"}, 100);
}

TEST_CASE("three calls in flight") {
  prove_forker(blas_under_test(), {"--flight=3", "--child-threads-at-end=2"}, 100);
}

TEST_CASE("three small calls in flight") {
  prove_forker(blas_under_test(), {"--flight=3", "--n=128"}, 100);
  // OpenBLAS computes n = 64 with one thread. A child hangs only if it inherits the memory
  // allocator's lock, which is too rare to expect it without the library.
  expect_success(forker(blas_under_test(), {"--flight=3", "--n=64", "--forks=200"}), 200);
}

TEST_CASE("three large calls in flight") {
  // Under QEMU a product of 600 takes a second.
  prove_forker(blas_under_test(), {"--flight=3", emulated() ? "--n=300" : "--n=600"}, 30);
}

TEST_CASE("LU in flight") {
  prove_forker(blas_under_test(), {"--flight=2", "--op=lu", "--n=200"}, 25);
}

TEST_CASE("LU in flight, products in children") {
  prove_forker(blas_under_test(), {"--flight=3", "--flight-op=lu", "--flight-n=250"}, 50);
}

TEST_CASE("SVD in children, products in flight") {
  const Blas blas = blas_under_test();
  prove_forker(blas, {"--flight=2", "--op=svd", "--n=40", "--flight-op=gemm", "--flight-n=200"},
               20);
}

TEST_CASE("a fork from another thread") {
  prove_forker(blas_under_test(), {"--flight=2", "--from=thread"}, 100);
}

TEST_CASE("two threads fork at once") {
  prove_forker(blas_under_test(), {"--flight=1", "--from=both"}, 100);
}

TEST_CASE("25 generations with 32 threads each") {
  const Blas blas = blas_under_test();
  std::vector<std::string> arguments = {"--nest=25", "--threads=32"};
  // Without the library and without a call in flight, only the OpenMP builds hang. The pause lets
  // the main thread compute too: OpenBLAS allows one call at a time, and with so many threads that
  // spin, a thread that waits for its mutex may never get it (with the library and without).
  if (!blas.openmp) arguments.insert(arguments.end(), {"--flight=1", "--flight-pause-us=1000"});
  const Command command = forker(blas, arguments);
  prove(command, command, 26);
}

// The next two cases do what OpenBLAS's own tests do: large products in children of children while
// the parents compute too, and another number of threads before each fork. Builds on their own
// threads pass both without the library, because no call is in flight.
TEST_CASE("three generations at once with large products") {
  const Blas blas = blas_under_test();
  const Command command =
      forker(blas, {"--nest=2", "--beside=yes", emulated() ? "--n=400" : "--n=1000"});
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
  // In 0.3.27 to 0.3.29, calls in flight count CPU_AVAILABLE down. With so many of them a child
  // without the library waits forever until the counter rises.
  prove_forker(blas_under_test(), {"--flight=40"}, 20);
}

TEST_CASE("children that exec, exit or never touch BLAS") {
  const Blas blas = blas_under_test();
  for (const char* child : {"exec", "exit", "nothing"}) {
    const Command command =
        forker(blas, {"--flight=2", std::string("--child=") + child, "--forks=100"});
    // On OpenMP without the library, children that exec or never compute do well. Only children
    // that compute and then call exit() fail.
    if (!blas.openmp || std::string(child) == "exit") expect_trouble(command);
    expect_success(command, 100);
  }
}

TEST_CASE("children start with empty buffers") {
  if (emulated()) skip("QEMU does not say which pages of memory a process has");
  prove_forker(blas_under_test(), {"--child=look"}, 100);
}

TEST_CASE("lazily bound") {
  prove_forker(blas_under_test(), {"--flight=1", "--binding=lazy"}, 100);
}

TEST_CASE("loaded with RTLD_DEEPBIND") {
  prove_forker(blas_under_test(), {"--flight=1", "--binding=deep", "--child-threads-at-end=2"},
               100);
}

TEST_CASE("loaded at start") {
  const Blas blas = blas_under_test();
  Command command = forker(blas, {"--blas=", "--flight=1", "--forks=100"});
  command.environment["LD_PRELOAD"] = blas.path;
  prove(command, command, 100);
}

TEST_CASE("a fork after dlclose") {
  // No fork handler of the unloaded OpenBLAS may run. Without the library an OpenMP build crashes,
  // because dlclose unloads the OpenMP runtime while its threads run.
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
  // The copies have about 250 MB. A temporary folder may be in memory, so use the build folder.
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
