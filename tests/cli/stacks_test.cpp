// SPDX-License-Identifier: Apache-2.0
// Threads that are stopped to be read, and end meanwhile. A function that is called while a thread
// is stopped brings that about.
#include "process/stacks.h"

#include <signal.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <functional>

#include "background.h"

using namespace forksafe_test;
using forksafe::cli::Objects;
using forksafe::cli::Process;

namespace {

// Two threads of the specimen: the main one and another one.
class StoppableThreads {
 public:
  StoppableThreads()
      : background_(specimen({"execs-on-signal"})),
        other_(background_.ready()),
        process_(background_.pid()),
        objects_(process_) {}

  Background& background() { return background_; }
  pid_t pid() const { return background_.pid(); }
  pid_t other() const { return other_; }

  void while_stopped(pid_t tid, const std::function<void()>& act) const {
    forksafe::cli::sample_stacks({{&process_, &objects_, tid}},
                                 {1, 0, std::chrono::microseconds(0), std::chrono::seconds(1)},
                                 [&](size_t, const forksafe::cli::Sample&) {
                                   act();
                                   return false;
                                 });
  }
  bool other_has_ended() const {
    return comes([&] { return state_of(other_) == 'Z'; });
  }

 private:
  Background background_;
  pid_t other_;
  Process process_;
  Objects objects_;
};

}  // namespace

// The kernel keeps such a thread for the one who has stopped it.
TEST_CASE("a process ends that is killed while a thread is stopped", "[stacks]") {
  StoppableThreads threads;
  threads.while_stopped(threads.other(), [&] {
    kill(threads.pid(), SIGKILL);
    CHECK(threads.other_has_ended());
  });
  CHECK(comes([&] {
    forksafe::cli::continue_late_threads();
    return threads.background().has_ended();
  }));
}

// A thread of a process that executes a program can't be stopped before the other threads have
// ended.
TEST_CASE("a thread is stopped beside one that an exec has ended", "[stacks]") {
  alarm(60);  // a thread that waits in ptrace(2) would wait for ever
  StoppableThreads threads;
  threads.while_stopped(threads.other(), [&] {
    kill(threads.pid(), SIGUSR1);
    CHECK(threads.other_has_ended());
    bool is_stopped = false;
    threads.while_stopped(threads.pid(), [&] { is_stopped = true; });
    CHECK(is_stopped);
  });
  CHECK(comes(
      [&] { return contains(read_file("/proc/" + word(threads.pid()) + "/comm"), "sleep"); }));
  CHECK(comes([&] { return state_of(threads.pid()) == 'S'; }));
  alarm(0);
}
