// SPDX-License-Identifier: Apache-2.0
// GNU OpenMP by itself, every copy of it; and the OpenMP runtimes that care for themselves.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "setting.h"

using namespace forksafe_test;

namespace {

Command omp_forker(const std::string& situation, int forks,
                   const std::vector<std::string>& copies = {}) {
  Command command;
  command.arguments = {program("omp_forker"), situation, std::to_string(forks)};
  command.arguments.insert(command.arguments.end(), copies.begin(), copies.end());
  return command;
}

void prove_openmp(const std::string& situation, int forks) {
  const Command command = omp_forker(situation, forks);
  prove(command, command, forks);
}

std::string llvm_openmp() {
  const std::string path = multiarch_folder() + "/libomp.so.5";
  if (access(path.c_str(), R_OK) != 0) skip("not installed: libomp.so.5");
  return path;
}

// OpenBLAS's OpenMP build on another runtime, idle and in flight.
void prove_other_runtime(Command idle, Command flight) {
  // Idle these runtimes do well by themselves: nothing to prove but that they still do.
  CHECK(run(idle).succeeded());
  expect_success(idle, 300);
  prove(flight, flight, 200);
}

}  // namespace

TEST_CASE("a program's own parallel regions") { prove_openmp("idle", 500); }
TEST_CASE("internal control variables survive") { prove_openmp("variables", 300); }
TEST_CASE("a thread with a pool of its own") { prove_openmp("thread", 300); }
TEST_CASE("regions and critical sections in flight") { prove_openmp("flight", 500); }

TEST_CASE("a fork inside a region: the child may exec or exit, the parent goes on") {
  const Command command = omp_forker("inside-region", 300);
  CHECK(run(command).succeeded());
  expect_success(command, 300);
}

TEST_CASE("several copies of GNU OpenMP") {
  const auto renamed = std::filesystem::temp_directory_path() /
                       ("libgomp-" + std::to_string(getpid()) + ".so.1.0.0");
  std::filesystem::copy_file(multiarch_folder() + "/libgomp.so.1", renamed);
  const Command command =
      omp_forker("copies", 300, {renamed.string(), in_wheels("scikit-learn/*.libs/libgomp*.so*")});
  prove(command, command, 300);
  std::filesystem::remove(renamed);
}

TEST_CASE("LLVM's OpenMP preloaded") {
  const Blas blas = blas_by_name("debian-openmp");
  Command idle = forker(blas, {"--forks=300"});
  idle.environment["LD_PRELOAD"] = llvm_openmp();
  Command flight = forker(blas, {"--flight=2", "--forks=200"});
  flight.environment["LD_PRELOAD"] = llvm_openmp();
  prove_other_runtime(idle, flight);
}

TEST_CASE("LLVM's OpenMP that calls itself libgomp.so.1") {
  const Blas blas = blas_by_name("debian-openmp");
  const auto folder =
      std::filesystem::temp_directory_path() / ("forksafe-libgomp-" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  std::filesystem::create_symlink(llvm_openmp(), folder / "libgomp.so.1");
  Command idle = forker(blas, {"--forks=300"});
  idle.environment["LD_LIBRARY_PATH"] = folder.string() + ":" + blas.library_path;
  Command flight = forker(blas, {"--flight=2", "--forks=200"});
  flight.environment["LD_LIBRARY_PATH"] = folder.string() + ":" + blas.library_path;
  prove_other_runtime(idle, flight);
  std::filesystem::remove_all(folder);
}

TEST_CASE("Intel's OpenMP preloaded") {
  const Blas blas = blas_by_name("debian-openmp");
  const std::string intel = in_wheels("intel-openmp/intel_openmp*.data/data/lib/libiomp5.so");
  Command idle = forker(blas, {"--forks=300", "--errno=changed"});
  idle.environment["LD_PRELOAD"] = intel;
  idle.environment["KMP_WARNINGS"] = "0";
  Command flight = forker(blas, {"--flight=2", "--forks=200", "--errno=changed"});
  flight.environment = idle.environment;
  prove_other_runtime(idle, flight);
}
