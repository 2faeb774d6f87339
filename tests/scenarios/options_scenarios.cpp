// SPDX-License-Identifier: Apache-2.0
// The options, the log, and forks whose child computes with one thread because a call took too
// long.
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "setting.h"

using namespace forksafe_test;

namespace {

// The path of a log file, which is removed at the end of the test.
class LogFile {
 public:
  LogFile()
      : path_(std::filesystem::temp_directory_path() /
              ("forksafe-log-" + std::to_string(getpid()))) {}
  ~LogFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }
  std::string text() const {
    std::ifstream file(path_);
    std::ostringstream all;
    all << file.rdbuf();
    return all.str();
  }
  int count(const std::string& part) const {
    int result = 0;
    const std::string all = text();
    for (size_t at = all.find(part); at != std::string::npos; at = all.find(part, at + 1)) ++result;
    return result;
  }

 private:
  std::filesystem::path path_;
};

// Runs a program under a limit (limits.h) that a log meets.
void try_log(const std::string& limit, const std::string& target) {
  INFO(limit);
  Command command = forker(blas_by_name("debian"), {"--forks=20"});
  command.arguments.insert(command.arguments.begin(), {program("limited"), limit});
  command.environment["FORKSAFE_TEST_PRELOAD"] = library_path();
  command.environment["FORKSAFE_LOG"] = target;
  // A line to standard error at the start.
  if (target == "stderr") command.environment["FORKSAFE_POOL"] = "unknown";
  command.total_seconds = 30;
  command.quiet_seconds = 10;
  const Outcome outcome = run(command);
  INFO(outcome.describe());
  CHECK(outcome.succeeded());
  CHECK(outcome.forks() == 20);
}

}  // namespace

TEST_CASE("a call that outlives FORKSAFE_WAIT_MS: children compute with one thread, exactly") {
  for (const char* name : {"debian-openmp", "debian-openmp-libblas"}) {
    const LogFile log;
    // Under QEMU a product of this size would take a minute.
    const std::string size = emulated() ? "--flight-n=600" : "--flight-n=2500";
    Command command =
        forker(blas_by_name(name), {"--flight=1", size, "--forks=25", "--or-one-thread=yes"});
    expect_trouble(command);
    command.environment["FORKSAFE_WAIT_MS"] = "20";
    command.environment["FORKSAFE_LOG"] = log.path();
    expect_success(command, 25);
    INFO(log.text());
    CHECK(log.count("a child computes with one thread in ") > 0);
    CHECK(log.count("outlived FORKSAFE_WAIT_MS") > 0);
  }
}

TEST_CASE("within FORKSAFE_WAIT_MS no fork is degraded") {
  for (const char* name : {"debian", "debian-openmp"}) {
    const LogFile log;
    Command command = forker(blas_by_name(name), {"--flight=3", "--forks=100"});
    command.environment["FORKSAFE_LOG"] = log.path();
    command.environment["FORKSAFE_WAIT_MS"] = "10000";
    expect_success(command, 100);
    INFO(log.text());
    CHECK(log.count("one thread") == 0);
    CHECK(log.count("adopted ") == (std::string(name) == "debian" ? 1 : 2));
    CHECK(log.count("OpenBLAS 0.3.") == 1);
  }
}

TEST_CASE("FORKSAFE_POOL=drop leaves one thread in the parent") {
  if (emulated()) skip("QEMU has a thread of its own in each process, so the pool is kept");
  for (const char* name : {"debian", "numpy-2.2", "openblas64"}) {
    Command drop = forker(blas_by_name(name),
                          {"--forks=100", "--threads-after=1", "--child-threads-at-end=2"});
    drop.environment["FORKSAFE_POOL"] = "drop";
    expect_success(drop, 100);
  }
}

TEST_CASE("FORKSAFE_POOL=drop is safe with a call in flight") {
  // While the program has another thread, the pool is kept: the process would have several threads
  // even without the pool.
  for (const char* name : {"debian", "numpy-2.2", "openblas64"}) {
    Command busy = forker(blas_by_name(name), {"--flight=1", "--forks=50"});
    busy.environment["FORKSAFE_POOL"] = "drop";
    expect_success(busy, 50);
  }
}

TEST_CASE("FORKSAFE_CHILD_THREADS=N gives children N threads") {
  for (const char* name : {"debian", "debian-openmp", "numpy-2.2", "openblas64"}) {
    for (const char* threads : {"1", "3"}) {
      Command command =
          forker(blas_by_name(name),
                 {"--flight=1", "--forks=50", std::string("--child-threads=") + threads,
                  std::string("--child-threads-at-end=") + threads});
      command.environment["FORKSAFE_CHILD_THREADS"] = threads;
      expect_success(command, 50);
    }
  }
}

TEST_CASE("FORKSAFE=0 switches everything off") {
  Command command = forker(blas_by_name("debian"), {"--flight=1", "--forks=300"});
  command.environment["FORKSAFE"] = "0";
  expect_trouble(with_library(command));
}

TEST_CASE("a value that can't be read: the library prints one line and uses the default") {
  Command command;
  command.arguments = {program("omp_forker"), "nothing"};
  command.environment = {{"FORKSAFE_WAIT_MS", "soon"}};
  const Outcome outcome = run(with_library(command));
  CHECK(outcome.succeeded());
  CHECK(outcome.output.find("FORKSAFE_WAIT_MS=soon can't be read: give milliseconds from 0 to "
                            "3600000; going on with 1000\n") != std::string::npos);
  CHECK(std::count(outcome.output.begin(), outcome.output.end(), '\n') == 1);
}

TEST_CASE("a log that can't be written does not disturb the program") {
  Command command = forker(blas_by_name("debian"), {"--forks=20"});
  command.environment["FORKSAFE_LOG"] = "/nonexistent/folder/log";
  expect_success(command, 20);
}

TEST_CASE("a log that nobody reads does not disturb the program") {
  for (const char* limit : {"full-stderr", "closed-stderr"}) try_log(limit, "stderr");
}

TEST_CASE("a log that may not grow does not disturb the program") {
  if (emulated()) skip("QEMU writes a file itself, its copy of /proc/self/maps");
  const LogFile log;
  try_log("fsize=0", log.path());
}

TEST_CASE("by default nothing is printed") {
  Command command = forker(blas_by_name("debian"), {"--flight=1", "--forks=20"});
  const Outcome outcome = run(with_library(command));
  CHECK(outcome.succeeded());
  CHECK(outcome.output == std::string(20, '.'));
}
