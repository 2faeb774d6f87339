// SPDX-License-Identifier: Apache-2.0
// Children share the processors. A test that waits until a process notices something waits long,
// because on a busy machine that process may not run for a while.
#include "sharing/fork_tree.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "sharing/processors.h"
#include "support.h"

using forksafe::thread_share;

namespace {

bool ends_at_a_look = false;

}  // namespace

/// Takes the place of libc's in this program.
extern "C" int clock_getcpuclockid(pid_t pid, clockid_t* clock) noexcept {
  using Function = int (*)(pid_t, clockid_t*);
  static const auto next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "clock_getcpuclockid"));
  if (ends_at_a_look) _exit(0);
  return next(pid, clock);
}

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void compute(double duration) {
  const double end = seconds() + duration;
  while (seconds() < end) {
  }
}

// The share of each child if that many children compute.
int of(int children) { return std::max(1, forksafe::affinity_processors() / children); }

std::string comes_to(int share, double limit = 15) {
  const double end = seconds() + limit;
  while (thread_share() != share) {
    if (seconds() > end) return "share: " + std::to_string(thread_share());
    compute(0.001);
  }
  return "";
}

// Siblings, each in a process that ends with this object.
class Siblings {
 public:
  Siblings() {
    forksafe::start_fork_tree();
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rests_ = static_cast<std::atomic<bool>*>(page);
  }
  ~Siblings() {
    for (const pid_t pid : pids_) kill(pid, SIGKILL);
    for (const pid_t pid : pids_) waitpid(pid, nullptr, 0);
    munmap(rests_, 4096);
  }
  // One that computes, and asks for its share as a runtime does.
  pid_t start() {
    const pid_t pid = fork();
    if (pid == 0) {
      forksafe::enter_fork_tree();
      for (;;) {
        if (rests_->load()) {
          usleep(1000);
        } else {
          compute(0.001);
          thread_share();
        }
      }
    }
    pids_.push_back(pid);
    return pid;
  }
  void rest(bool value) { rests_->store(value); }

 private:
  std::vector<pid_t> pids_;
  std::atomic<bool>* rests_;
};

std::string in_child(const std::function<std::string()>& body) {
  return run_in_child(
      [&] {
        forksafe::enter_fork_tree();
        return body();
      },
      60000);
}

}  // namespace

TEST_CASE("the parent has no share", "[fork_tree]") {
  const Siblings none;
  CHECK(thread_share() == 0);
}

TEST_CASE("a child that is alone has all processors, at its first question", "[fork_tree]") {
  const Siblings none;
  CHECK(in_child([] { return comes_to(of(1), 0); }) == "");
}

TEST_CASE("siblings that compute have equal shares, and one at least", "[fork_tree]") {
  for (const int others : {1, 2, 7, 30}) {
    CAPTURE(others);
    Siblings siblings;
    for (int i = 0; i < others; ++i) siblings.start();
    CHECK(in_child([&] { return comes_to(of(others + 1)); }) == "");
  }
}

TEST_CASE("a sibling that rests leaves its share, and has it again when it computes",
          "[fork_tree]") {
  Siblings siblings;
  siblings.start();
  CHECK(in_child([&]() -> std::string {
          std::string wrong = comes_to(of(2));
          siblings.rest(true);
          wrong += comes_to(of(1));
          siblings.rest(false);
          return wrong + comes_to(of(2));
        }) == "");
}

TEST_CASE("a sibling that computes without asking counts all the same", "[fork_tree]") {
  Siblings siblings;
  CHECK(in_child([&]() -> std::string {
          const pid_t sibling = fork();
          if (sibling == 0) {
            forksafe::enter_fork_tree();
            thread_share();
            compute(60);  // one long call
            _exit(0);
          }
          compute(1);  // longer than a new child is taken to compute
          const std::string wrong = comes_to(of(2));
          kill(sibling, SIGKILL);
          return wrong;
        }) == "");
}

TEST_CASE("a killed sibling leaves its share, reaped or not", "[fork_tree]") {
  for (const bool reaped : {true, false}) {
    CAPTURE(reaped);
    Siblings siblings;
    CHECK(in_child([&]() -> std::string {
            const pid_t sibling = fork();
            if (sibling == 0) {
              forksafe::enter_fork_tree();
              for (;;) thread_share();
            }
            std::string wrong = comes_to(of(2));
            kill(sibling, SIGKILL);
            if (reaped) waitpid(sibling, nullptr, 0);
            wrong += comes_to(of(1));
            return wrong;
          }) == "");
  }
}

TEST_CASE("more children than there is room for, one after another", "[fork_tree]") {
  const Siblings none;
  for (int i = 0; i < 1200; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      forksafe::enter_fork_tree();
      _exit(thread_share() == 0 ? 1 : 0);
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    REQUIRE(status == 0);
  }
  usleep(2 * forksafe::kIdleMs * 1000);
  CHECK(in_child([] { return comes_to(of(1)); }) == "");
}

TEST_CASE("children that end while they enter leave no place taken", "[fork_tree]") {
  Siblings siblings;
  for (int i = 0; i < 1010; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      forksafe::enter_fork_tree();
      ends_at_a_look = true;
      thread_share();
      _exit(1);
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    REQUIRE(status == 0);
  }
  siblings.start();
  CHECK(in_child([] { return comes_to(of(2)); }) == "");
}

TEST_CASE("threads of one child may ask at once", "[fork_tree]") {
  const Siblings none;
  CHECK(in_child([]() -> std::string {
          std::atomic<bool> wrong{false};
          pthread_t threads[8];
          const auto ask = [](void* result) -> void* {
            for (int i = 0; i < 20000; ++i) {
              // Another thread may be writing the process down.
              if (thread_share() < 1) *static_cast<std::atomic<bool>*>(result) = true;
            }
            return nullptr;
          };
          for (pthread_t& thread : threads) pthread_create(&thread, nullptr, ask, &wrong);
          for (const pthread_t thread : threads) pthread_join(thread, nullptr);
          return wrong ? "no share" : comes_to(of(1));
        }) == "");
}

TEST_CASE("rubbish in the shared page does no harm", "[fork_tree]") {
  // Any process of the tree can write to it: into one of its first words, or everywhere.
  const int word = GENERATE(0, 1, 2, 3, 4, 5, 6, 7, -1);
  const uint32_t value = GENERATE(0U, 0x7fffffffU, 0x80000000U, UINT32_MAX);
  CAPTURE(word, value);
  forksafe::start_fork_tree();
  CHECK(run_in_child([word, value]() -> std::string {
          forksafe::enter_fork_tree();
          thread_share();
          std::ifstream maps("/proc/self/maps");
          bool found = false;
          for (std::string line; std::getline(maps, line);) {
            unsigned long begin, end;
            if (line.find(" rw-s ") == std::string::npos) continue;
            if (sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2 || end - begin <= 4096) continue;
            auto* words = reinterpret_cast<uint32_t*>(begin);
            const size_t count = (end - begin) / sizeof *words;
            for (size_t i = 0; i < count; ++i) {
              if (word < 0 || i == static_cast<size_t>(word)) words[i] = value;
            }
            found = true;
          }
          if (!found) return "there is no shared page";
          for (int i = 0; i < 3; ++i) {
            compute(forksafe::kLookMs * 0.0015);
            const int share = thread_share();
            if (share < 1 || share > of(1)) return "share: " + std::to_string(share);
          }
          return "";
        }) == "");
}
