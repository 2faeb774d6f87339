// SPDX-License-Identifier: Apache-2.0
// What the library must leave unchanged: programs without BLAS, other ways to start a process, and
// other preloaded libraries.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <regex>

#include "setting.h"

using namespace forksafe_test;

namespace {

std::string installed(const std::string& file) {
  const std::string path = multiarch_folder() + "/" + file;
  if (access(path.c_str(), R_OK) != 0) skip("not installed: " + file);
  return path;
}

void prove_beside(const std::string& preload) {
  for (const bool ours_first : {true, false}) {
    Command command = forker(blas_by_name("debian"), {"--flight=2", "--forks=100"});
    command.environment["LD_PRELOAD"] =
        ours_first ? library_path() + ":" + preload : preload + ":" + library_path();
    const Outcome outcome = run(command);
    INFO(outcome.describe());
    CHECK(outcome.succeeded());
  }
  Command openmp = forker(blas_by_name("debian-openmp"), {"--flight=2", "--forks=100"});
  openmp.environment["LD_PRELOAD"] = preload;
  expect_success(openmp, 100);
  // In the child the library sets GNU OpenMP's variables again, which allocates memory. The
  // preloaded allocator must be ready for that.
  Command variables;
  variables.arguments = {program("omp_forker"), "variables", "300"};
  variables.environment["LD_PRELOAD"] = preload;
  expect_success(variables, 300);
}

}  // namespace

TEST_CASE("a program without BLAS prints the same") {
  Command command;
  command.arguments = {program("plain")};
  const Outcome without = run(command);
  Outcome with = run(with_library(command));
  // Under QEMU, system() starts a shell of this machine's architecture. The dynamic linker prints
  // that it can't preload the library there.
  const std::regex complaint("ERROR: ld.so: object [^\n]*\n");
  if (emulated()) with.output = std::regex_replace(with.output, complaint, "");
  CHECK(without.succeeded());
  CHECK(with.succeeded());
  CHECK(without.output.find("child pBpAcAcB errno 4000") != std::string::npos);
  CHECK(without.output.find("daemon ") != std::string::npos);
  CHECK(with.output == without.output);
}

TEST_CASE("eatmydata preloaded beside the library") { prove_beside(installed("libeatmydata.so")); }
TEST_CASE("jemalloc preloaded beside the library") { prove_beside(installed("libjemalloc.so.2")); }

TEST_CASE("two copies of the library preloaded") {
  const std::string folder =
      std::filesystem::temp_directory_path() / ("forksafe-copy-" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  const std::string copy = folder + "/libforksafe.so";
  std::filesystem::copy_file(library_path(), copy);
  for (const char* name : {"debian", "debian-openmp"}) {
    Command command = forker(blas_by_name(name), {"--flight=2", "--forks=100"});
    command.environment["LD_PRELOAD"] = copy;
    expect_success(command, 100);
  }
  std::filesystem::remove_all(folder);
}
