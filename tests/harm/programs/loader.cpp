// SPDX-License-Identifier: Apache-2.0
// A thread loads and unloads a library while the program forks. The library's constructor registers
// fork handlers, forks, or sleeps. It runs under the linker's lock, so fork() must not wait for it.
//
// Modes: register, fork, sleep. With libgomp.so.1 as a second argument the program loads GNU OpenMP
// first.
#include "harm.h"
#include "plugin.h"

namespace {

constexpr int kForks = 500;
constexpr int kLoads = 200;
constexpr int kSleepUs = 2000000;
constexpr double kLongestFork = 1.0;  // on a busy machine, and far below the constructor's sleep

std::atomic<int> loads{0};
std::atomic<bool> sleeping{false};

void* load_again_and_again(void*) {
  for (;;) {
    dlclose(harm::load("plugin_a"));
    ++loads;
  }
}

void fork_beside_loads() {
  harm::start_thread(load_again_and_again);
  for (int i = 0; i < kForks * harm::times || loads < kLoads * harm::times; ++i) {
    const pid_t child = harm::bounded_fork();
    if (child == 0) _exit(0);
    harm::reap_well(child);
  }
  harm::say("%d forks and %d loads ended well", kForks, kLoads);
}

void fork_beside_sleep() {
  harm::start_thread(load_again_and_again);
  while (!sleeping) harm::pause_us(100);
  for (int i = 0; i < 20; ++i) {
    const double start = harm::now();
    const pid_t child = harm::bounded_fork();
    if (child == 0) {
      harm::watch(30);
      harm::fork_once();
      _exit(0);
    }
    harm::expect(harm::now() - start < kLongestFork, "fork() waited for a constructor");
    harm::reap_well(child);
  }
  harm::say("no fork waited for the constructor");
}

}  // namespace

void in_plugin_constructor(RegisterForkHandlers register_handlers) {
  if (harm::mode_is("sleep")) {
    sleeping = true;
    harm::pause_us(kSleepUs);
    return;
  }
  harm::pause_us(300);
  // They lie in the program, so that a fork under way may still call them after dlclose.
  if (harm::mode_is("register")) register_handlers([] {}, [] {}, [] {});
  if (harm::mode_is("fork")) harm::fork_once();
}
void in_plugin_destructor() {}

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 100L * (kForks + kLoads));
  if (strcmp(harm::more, "libgomp.so.1") == 0) harm::load_gnu_openmp();
  if (harm::mode_is("sleep")) {
    fork_beside_sleep();
  } else {
    fork_beside_loads();
  }
  _exit(0);  // the other thread goes on
}
