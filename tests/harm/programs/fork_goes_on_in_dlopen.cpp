// SPDX-License-Identifier: Apache-2.0
// A library's constructor forks, and the child goes on in dlopen, which runs the constructors of a
// second library. That comes again at its old address, and registers a prepare handler alone, as
// OpenBLAS does. A thread of the parent is in dl_iterate_phdr, whose lock the child finds held.
// probe: the constructor has loaded and unloaded a third library before.
#include "linker_lock.h"
#include "plugin.h"

namespace {

constexpr int kForks = 20;

pid_t child = -1;

int take_a_while(dl_phdr_info*, size_t, void*) {
  harm::pause_us(100);
  return 0;
}

void* iterate(void*) {
  for (;;) {
    dl_iterate_phdr(take_a_while, nullptr);
    harm::pause_us(100);  // dlopen gets the lock
  }
}

}  // namespace

void in_plugin_constructor(RegisterForkHandlers) {
  static bool probes = false;
  if (probes) return;
  if (harm::mode_is("probe")) {
    probes = true;
    dlclose(harm::load("plugin_a"));
    probes = false;
  }
  harm::pause_us(1000);  // the other thread gets the lock
  child = harm::bounded_fork();
  if (child == 0) harm::watch(10);
}
void in_plugin_destructor() {}
void in_last_constructor(RegisterForkHandlers register_handlers) {
  register_handlers([] {}, nullptr, nullptr);
}

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 10L * kForks);
  harm::start_thread(iterate);
  for (int i = 0; i < kForks * harm::times; ++i) {
    void* library = harm::load("needs_plugin");
    if (child == 0) _exit(0);
    harm::reap_well(child);
    dlclose(library);
  }
  harm::say("%d children went on in dlopen", kForks);
  _exit(0);  // the other thread goes on
}
