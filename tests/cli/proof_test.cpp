// SPDX-License-Identifier: Apache-2.0
// The trials of `forksafe check`: each library without and with libforksafe.so.
#include "verdicts/proof.h"

#include <glob.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "base/error.h"

namespace {

using forksafe::cli::Error;
using forksafe::cli::Proof;
using forksafe::cli::Situation;
using End = Proof::End;

std::string required(const char* variable) {
  const char* value = getenv(variable);
  if (value == nullptr) throw std::runtime_error(std::string(variable) + " is not set");
  return value;
}

std::string first_match(const std::string& pattern) {
  glob_t matches = {};
  std::string result;
  if (glob(pattern.c_str(), 0, nullptr, &matches) == 0) result = matches.gl_pathv[0];
  globfree(&matches);
  if (result.empty()) WARN("skipped, not installed: " << pattern);
  return result;
}

std::string debian(const std::string& name) {
  return first_match(required("FORKSAFE_TEST_LIBDIR") + "/" + name);
}
std::string wheel(const std::string& pattern) {
  return first_match(required("FORKSAFE_TEST_WHEELS") + "/" + pattern);
}

// Sets a variable of the environment for the lifetime of the object.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = getenv(name)) before_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (before_.empty()) {
      unsetenv(name_);
    } else {
      setenv(name_, before_.c_str(), 1);
    }
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::string before_;
};

// Two threads, also on a machine with one processor.
class TwoThreads {
  Variable omp_{"OMP_NUM_THREADS", "2"};
  Variable openblas_{"OPENBLAS_NUM_THREADS", "2"};
  Variable blis_{"BLIS_NUM_THREADS", "2"};
};

const std::string kWithout;

Proof prove(const std::string& library, Situation situation, const std::string& preload,
            const std::vector<std::string>& dependencies = {}) {
  const Proof proof =
      forksafe::cli::prove(required("FORKSAFE_PROBE"), library, dependencies, situation, preload);
  printf("%s, %s, %s: %s (%.1f s)\n", library.c_str(),
         situation == Situation::kIdle ? "idle" : "in flight", preload.empty() ? "without" : "with",
         proof.detail.c_str(), proof.seconds);
  CHECK(proof.detail.find('\n') == std::string::npos);
  CHECK_FALSE(proof.detail.empty());
  return proof;
}

bool fails(const Proof& proof) { return proof.end == End::kHung || proof.end == End::kCrashed; }

void passes_with_library(const std::string& library,
                         const std::vector<std::string>& dependencies = {}) {
  for (const Situation situation : {Situation::kIdle, Situation::kInFlight}) {
    const Proof proof = prove(library, situation, required("FORKSAFE_LIB"), dependencies);
    INFO(proof.detail);
    CHECK(proof.end == End::kPassed);
    CHECK(proof.forks > 0);
  }
}

void try_numpy(const std::string& version) {
  const TwoThreads two;
  const std::string folder = "numpy-" + version + "/numpy.libs/";
  const std::string library = wheel(folder + "lib*openblas*.so");
  if (library.empty()) return;
  // The libraries find each other by paths relative to numpy's extension modules.
  std::vector<std::string> dependencies;
  for (const char* name : {"libquadmath*", "libgfortran*"}) {
    const std::string path = wheel(folder + name);
    if (!path.empty()) dependencies.push_back(path);
  }
  CHECK(prove(library, Situation::kIdle, kWithout, dependencies).end == End::kPassed);
  CHECK(fails(prove(library, Situation::kInFlight, kWithout, dependencies)));
  passes_with_library(library, dependencies);
}

std::vector<pid_t> running_probes_below(pid_t parent) {
  std::vector<pid_t> found;
  glob_t stats = {};
  glob("/proc/[0-9]*/stat", 0, nullptr, &stats);
  for (size_t i = 0; i < stats.gl_pathc; ++i) {
    std::ifstream file(stats.gl_pathv[i]);
    pid_t pid = 0;
    pid_t ppid = 0;
    std::string name;
    std::string state;
    file >> pid >> name >> state >> ppid;
    if (ppid == parent && name == "(forksafe-probe)" && state != "Z") found.push_back(pid);
  }
  globfree(&stats);
  return found;
}

template <typename Condition>
bool comes_true(Condition condition) {
  for (int i = 0; i < 500; ++i) {
    if (condition()) return true;
    usleep(10000);
  }
  return false;
}

}  // namespace

TEST_CASE("OpenBLAS on its own threads fails only with calls in flight", "[proof]") {
  const TwoThreads two;
  const std::string library = debian("openblas-pthread/libopenblas.so.0");
  if (library.empty()) return;
  CHECK(prove(library, Situation::kIdle, kWithout).end == End::kPassed);
  CHECK(fails(prove(library, Situation::kInFlight, kWithout)));
  passes_with_library(library);
}

TEST_CASE("a BLAS on GNU OpenMP hangs in the first child", "[proof]") {
  const TwoThreads two;
  for (const char* name :
       {"libgomp.so.1", "openblas-openmp/libopenblas.so.0", "blis-openmp/libblis.so.?"}) {
    const std::string library = debian(name);
    if (library.empty()) continue;
    const Proof idle = prove(library, Situation::kIdle, kWithout);
    CHECK(idle.end == End::kHung);
    CHECK(idle.forks == 0);
    CHECK(idle.detail == "a child hung at the first fork");
    CHECK(fails(prove(library, Situation::kInFlight, kWithout)));
    passes_with_library(library);
  }
}

TEST_CASE("LLVM's OpenMP passes without the library", "[proof]") {
  const TwoThreads two;
  const std::string library = debian("libomp.so.5");
  if (library.empty()) return;
  CHECK(prove(library, Situation::kIdle, kWithout).end == End::kPassed);
  CHECK(prove(library, Situation::kInFlight, kWithout).end == End::kPassed);
  passes_with_library(library);
}

TEST_CASE("numpy's OpenBLAS is tried with its prefixes, suffixes and dependencies", "[proof]") {
  try_numpy("2.4");
}

TEST_CASE("the OpenBLAS of older versions of numpy is tried", "[proof numpy]") {
  try_numpy("1.26");
  try_numpy("2.2");
}

TEST_CASE("a library that can't be tried is not proven", "[proof]") {
  const TwoThreads two;
  const auto detail = [](const std::string& library) {
    const Proof proof = prove(library, Situation::kIdle, kWithout);
    CHECK(proof.end == End::kNotProven);
    CHECK(proof.forks == 0);
    return proof.detail;
  };
  CHECK(detail("/nonexistent/libblas.so").find("No such file") != std::string::npos);
  CHECK(detail("/etc/passwd").find("invalid ELF header") != std::string::npos);
  CHECK(detail(debian("libdl.so.2")).find("no BLAS") != std::string::npos);
  const std::string library = debian("openblas-pthread/libopenblas.so.0");
  if (library.empty()) return;
  const Variable one("OPENBLAS_NUM_THREADS", "1");
  CHECK(detail(library) == "it computes with one thread here");
}

TEST_CASE("a probe that can't be run is an error", "[proof]") {
  CHECK_THROWS_AS(
      forksafe::cli::prove("/nonexistent/forksafe-probe", "x", {}, Situation::kIdle, kWithout),
      Error);
}

TEST_CASE("a libforksafe.so in the caller's LD_PRELOAD is not used", "[proof]") {
  const TwoThreads two;
  const std::string library = debian("libgomp.so.1");
  if (library.empty()) return;
  const Variable off("FORKSAFE", "0");
  const Variable preload("LD_PRELOAD", required("FORKSAFE_LIB"));
  CHECK(prove(library, Situation::kIdle, kWithout).end == End::kHung);
  CHECK(prove(library, Situation::kIdle, required("FORKSAFE_LIB")).end == End::kPassed);
}

TEST_CASE("other preloaded libraries are kept", "[proof]") {
  const TwoThreads two;
  const std::string library = debian("openblas-openmp/libopenblas.so.0");
  const std::string libomp = debian("libomp.so.5");
  if (library.empty() || libomp.empty()) return;
  // LLVM's OpenMP replaces GNU's, on which a child would hang. It passes while the parent is idle.
  // With OpenBLAS 0.3.27 and later the child crashes (see openmp_scenarios.cpp).
  const Variable preload("LD_PRELOAD", required("FORKSAFE_LIB") + ":" + libomp);
  CHECK(prove(library, Situation::kIdle, kWithout).end != End::kHung);
  CHECK(prove(library, Situation::kIdle, required("FORKSAFE_LIB")).end == End::kPassed);
}

TEST_CASE("the trial ends after the time that the caller allows", "[proof]") {
  const TwoThreads two;
  const std::string library = debian("libgomp.so.1");
  if (library.empty()) return;
  const Proof proof =
      forksafe::cli::prove(required("FORKSAFE_PROBE"), library, {}, Situation::kIdle, kWithout, 1);
  CHECK(proof.end == End::kNotProven);
  CHECK(proof.seconds < 2);
}

TEST_CASE("a hung trial leaves nothing behind and does not change the caller", "[proof]") {
  const TwoThreads two;
  const std::string library = debian("libgomp.so.1");
  if (library.empty()) return;
  for (const int subreaper : {0, 1}) {
    REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, subreaper) == 0);
    CHECK(prove(library, Situation::kIdle, kWithout).end == End::kHung);
    int now = -1;
    prctl(PR_GET_CHILD_SUBREAPER, &now);
    CHECK(now == subreaper);
    CHECK(waitpid(-1, nullptr, WNOHANG) == -1);  // no child, no zombie
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST_CASE("a caller that ignores SIGCHLD gets the same answer", "[proof]") {
  const TwoThreads two;
  const std::string library = debian("libomp.so.5");
  if (library.empty()) return;
  signal(SIGCHLD, SIG_IGN);
  CHECK(prove(library, Situation::kIdle, kWithout).end == End::kPassed);
  CHECK(signal(SIGCHLD, SIG_DFL) == SIG_IGN);
}

TEST_CASE("when the caller is killed, the hung probe and its child end", "[proof]") {
  const TwoThreads two;
  const std::string library = debian("libgomp.so.1");
  if (library.empty()) return;
  const std::string probe = required("FORKSAFE_PROBE");
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // adopts them, so that the test sees them end
  const pid_t caller = fork();
  REQUIRE(caller >= 0);
  if (caller == 0) {
    signal(SIGINT, SIG_DFL);  // Catch installs a handler
    forksafe::cli::prove(probe, library, {}, Situation::kIdle, kWithout);
    _exit(0);
  }
  pid_t leader = 0;
  pid_t child = 0;
  CHECK(comes_true([&] {
    for (const pid_t p : running_probes_below(caller)) leader = p;
    if (leader == 0) return false;
    for (const pid_t p : running_probes_below(leader)) child = p;
    return child != 0;
  }));
  kill(caller, SIGINT);
  CHECK(waitpid(caller, nullptr, 0) == caller);
  for (const pid_t orphan : {leader, child}) {
    if (orphan == 0) continue;
    CHECK(comes_true([&] { return waitpid(orphan, nullptr, WNOHANG) == orphan; }));
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}
