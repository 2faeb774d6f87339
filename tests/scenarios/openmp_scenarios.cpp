// SPDX-License-Identifier: Apache-2.0
// GNU OpenMP without a BLAS, in one copy and in several, and OpenBLAS on the OpenMP runtimes that
// handle fork themselves.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>

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

// OpenBLAS's OpenMP build on another runtime, which `environment` loads, idle and with calls in
// flight. These runtimes change errno in their own fork handlers, with the library or without.
void prove_other_runtime(const std::map<std::string, std::string>& environment) {
  const Blas blas = blas_by_name("debian-openmp");
  const auto command = [&](const std::string& flight, const std::string& forks) {
    Command result = forker(blas, {"--flight=" + flight, "--forks=" + forks, "--errno=changed"});
    for (const auto& [name, value] : environment) result.environment[name] = value;
    result.environment["KMP_WARNINGS"] = "0";
    return result;
  };
  // Idle, these runtimes work without the library, and must still work with it. But in a child they
  // forget the OpenMP locks that the program has made. OpenBLAS has such locks from 0.3.27 on
  // (level3_thread.c). So from that version on, the child crashes without the library.
  const Command idle = command("0", "100");
  if (patch_level(blas) < 27) {
    CHECK(run(idle).succeeded());
  } else {
    expect_trouble(idle);
  }
  expect_success(idle, 100);
  const Command in_flight = command("2", "100");
  prove(in_flight, in_flight, 100);
}

// With that variable, which our command sets, these runtimes register their handlers again in each
// child.
Command other_generations(const std::string& runtime) {
  Command command = omp_forker("generations", 20);
  command.environment["LD_PRELOAD"] = runtime;
  command.environment["KMP_INIT_AT_FORK"] = "TRUE";
  return command;
}

void prove_other_generations(const std::string& runtime) {
  const Command command = other_generations(runtime);
  prove(command, command, 20);
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

TEST_CASE("LLVM's OpenMP preloaded") { prove_other_runtime({{"LD_PRELOAD", llvm_openmp()}}); }

TEST_CASE("LLVM's OpenMP under the name libgomp.so.1") {
  const auto folder =
      std::filesystem::temp_directory_path() / ("forksafe-libgomp-" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  std::filesystem::create_symlink(llvm_openmp(), folder / "libgomp.so.1");
  prove_other_runtime(
      {{"LD_LIBRARY_PATH", folder.string() + ":" + blas_by_name("debian-openmp").library_path}});
  std::filesystem::remove_all(folder);
}

TEST_CASE("LLVM's OpenMP: children of children") { prove_other_generations(llvm_openmp()); }

// As in a library that it is linked into with hidden names. `diagnose` then has no name to know it
// by, so nothing tells that the program is stuck without the library.
TEST_CASE("LLVM's OpenMP without exported names: children of children") {
  const auto renamed =
      std::filesystem::temp_directory_path() / ("libomp-" + std::to_string(getpid()) + ".so");
  std::ifstream original(llvm_openmp(), std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(original), {}};
  const std::string name("\0__kmpc_fork_call\0", 18);
  const size_t position = content.find(name);
  REQUIRE(position != std::string::npos);
  content[position + 1] = 'x';
  std::ofstream(renamed, std::ios::binary) << content;
  const Command command = other_generations(renamed);
  Command bounded = command;
  bounded.total_seconds = 5;
  CHECK(run(bounded).end == Outcome::End::kTooLong);
  expect_success(command, 20);
  std::filesystem::remove(renamed);
}

TEST_CASE("Intel's OpenMP preloaded") { prove_other_runtime({{"LD_PRELOAD", intel_openmp()}}); }

TEST_CASE("Intel's OpenMP: children of children") { prove_other_generations(intel_openmp()); }
