// SPDX-License-Identifier: Apache-2.0
#include "setting.h"

#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>

namespace forksafe_test {
namespace {

// After that many seconds without output, diagnose checks whether the program is stuck. Without the
// library the program is expected to hang, so the time is short. The stacks tell a hang from a slow
// machine. A program that is only slow goes on, and is checked again later.
constexpr double kQuietWithout = 0.5;
constexpr double kQuietWith = 40;

// Under QEMU nothing tells a hang from a slow machine, and programs are slow.
constexpr double kQuietWithoutEmulated = 5;
constexpr double kQuietWithEmulated = 300;
constexpr double kTotalEmulated = 600;

struct Build {
  const char* name;
  const char* pattern;  // below the multiarch folder if it starts with "lib:", else below wheels
  const char* prefix;
  const char* suffix;
  bool openmp;
};

// The internal functions of OpenBLAS are interposable in Debian's builds, protected in numpy's and
// scipy's, and hidden in 0.3.34.
constexpr Build kBuilds[] = {
    {"debian", "lib:openblas-pthread/libopenblas.so.0", "", "", false},
    {"debian-openmp", "lib:openblas-openmp/libopenblas.so.0", "", "", true},
    {"debian-openmp-libblas", "lib:openblas-openmp/libblas.so.3", "", "", true},
    {"numpy-1.26", "numpy-1.26/numpy.libs/libopenblas*.so", "", "64_", false},
    {"numpy-2.2", "numpy-2.2/numpy.libs/lib*openblas*.so", "scipy_", "64_", false},
    {"numpy-2.4", "numpy-2.4/numpy.libs/lib*openblas*.so", "scipy_", "64_", false},
    {"scipy", "scipy-1.17/scipy.libs/lib*openblas*.so", "scipy_", "", false},
    {"openblas64", "openblas64/scipy_openblas64/lib/lib*openblas*.so", "scipy_", "64_", false},
    {"openblas32", "openblas32/scipy_openblas32/lib/lib*openblas*.so", "scipy_", "", false},
    {"blis-openmp", "lib:blis-openmp/libblis.so.?", "", "", true},
    {"blis-pthread", "lib:blis-pthread/libblis.so.?", "", "", false},
    {"blis-openmp-libblas", "lib:blis-openmp/libblas.so.3", "", "", true},
};

std::string first_match(const std::string& pattern) {
  glob_t matches = {};
  std::string result;
  if (glob(pattern.c_str(), 0, nullptr, &matches) == 0) result = matches.gl_pathv[0];
  globfree(&matches);
  return result;
}

std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

std::string required(const char* variable) {
  const char* value = getenv(variable);
  if (value == nullptr) throw std::runtime_error(std::string(variable) + " is not set");
  return value;
}

Outcome run_without(Command command) {
  command.quiet_seconds = emulated() ? kQuietWithoutEmulated : kQuietWithout;
  if (emulated()) command.total_seconds = kTotalEmulated;
  return run(command);
}

void check_trouble(const Outcome& outcome) {
  INFO("without the library " << outcome.describe());
  CHECK_FALSE(outcome.succeeded());
  // Status 2 means that the test calls the program with wrong arguments.
  CHECK_FALSE((outcome.end == Outcome::End::kExited && outcome.status == 2));
  CHECK(outcome.end != Outcome::End::kTooLong);
  printf("without: %s\n", outcome.describe().c_str());
}

}  // namespace

void skip(const std::string& reason) {
  printf("skipped: %s\n", reason.c_str());
  fflush(stdout);
  std::quick_exit(77);  // no destructors, but what the command's tests have started ends
}

std::string library_path() { return required("FORKSAFE_LIB"); }
std::string program(const std::string& name) {
  return required("FORKSAFE_TEST_PROGRAMS") + "/" + name;
}
std::string script(const std::string& name) {
  return required("FORKSAFE_TEST_SCRIPTS") + "/" + name;
}
std::string obspy_python() {
  const std::string path = required("FORKSAFE_TEST_OBSPY");
  if (access(path.c_str(), X_OK) != 0) {
    skip("ObsPy is not in the build folder: sh scripts/demo.sh installs it");
  }
  return path;
}
std::string multiarch_folder() { return required("FORKSAFE_TEST_LIBDIR"); }

std::string debian_python() {
  const char* other = getenv("FORKSAFE_TEST_PYTHON");
  const std::string python = other != nullptr ? other : "/usr/bin/python3";
  if (access(python.c_str(), X_OK) != 0) skip("no " + python);
  return python;
}

std::string in_wheels(const std::string& pattern) {
  const std::string path = first_match(required("FORKSAFE_TEST_WHEELS") + "/" + pattern);
  if (path.empty()) skip("no " + pattern + " among the wheels (scripts/test.sh fetches them)");
  return path;
}

std::string intel_openmp() {
  return in_wheels("intel-openmp/intel_openmp*.data/data/lib/libiomp5.so");
}

Blas blas_by_name(const std::string& name) {
  for (const Build& build : kBuilds) {
    if (name != build.name) continue;
    const std::string pattern = build.pattern;
    std::string path;
    if (pattern.rfind("lib:", 0) == 0) {
      path = first_match(multiarch_folder() + "/" + pattern.substr(4));
      if (path.empty()) skip("not installed: " + pattern.substr(4));
    } else {
      path = in_wheels(pattern);
    }
    return {path, build.prefix, build.suffix, folder_of(path), build.openmp};
  }
  throw std::runtime_error("no such BLAS: " + name);
}

Blas blas_under_test() { return blas_by_name(required("FORKSAFE_TEST_BLAS")); }

int patch_level(const Blas& blas) {
  const std::string file = std::filesystem::canonical(blas.path).filename();
  const size_t number = file.find("-r0.3.");
  if (number == std::string::npos) throw std::runtime_error("no version in " + file);
  return std::stoi(file.substr(number + strlen("-r0.3.")));
}

Command forker(const Blas& blas, const std::vector<std::string>& arguments) {
  Command command;
  command.arguments = {program("blas_forker"), "--blas=" + blas.path, "--prefix=" + blas.prefix,
                       "--suffix=" + blas.suffix};
  command.arguments.insert(command.arguments.end(), arguments.begin(), arguments.end());
  command.environment = {
      {"LD_LIBRARY_PATH", blas.library_path}, {"OMP_NUM_THREADS", "2"}, {"BLIS_NUM_THREADS", "2"}};
  return command;
}

Command with_library(Command command) {
  std::string& preload = command.environment["LD_PRELOAD"];
  preload = library_path() + (preload.empty() ? "" : ":" + preload);
  // On a busy machine a call may take longer than the default of 1000 ms. Then a child would
  // compute with one thread, and its result would differ in the last bits.
  command.environment.emplace("FORKSAFE_WAIT_MS", emulated() ? "300000" : "20000");
  return command;
}

Outcome expect_trouble(const Command& command) {
  const Outcome outcome = run_without(command);
  check_trouble(outcome);
  return outcome;
}

Outcome expect_success(Command command, int forks) {
  command.quiet_seconds = emulated() ? kQuietWithEmulated : kQuietWith;
  if (emulated()) command.total_seconds = kTotalEmulated;
  const Outcome outcome = run(with_library(command));
  INFO("with the library " << outcome.describe());
  if (const char* most = getenv("FORKSAFE_TEST_MOST_FORKS")) forks = std::min(forks, atoi(most));
  CHECK(outcome.succeeded());
  CHECK(outcome.forks() >= forks);
  printf("with: %s\n", outcome.describe().c_str());
  return outcome;
}

void prove(const Command& without, const Command& with, int forks) {
  // Both at once, since the one that hangs mostly waits; under QEMU, where a slow program is taken
  // for one that hangs, one after the other. Only this thread uses Catch2.
  const auto when = emulated() ? std::launch::deferred : std::launch::async;
  std::future<Outcome> outcome_without = std::async(when, run_without, without);
  expect_success(with, forks);
  check_trouble(outcome_without.get());
}

}  // namespace forksafe_test
