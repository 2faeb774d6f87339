// SPDX-License-Identifier: Apache-2.0
// Loads a library that calls forkpty, forks by it, unloads it, and does that again. Before glibc
// 2.34 libutil comes and goes with it, and comes to another address each time.
#include "harm.h"

namespace {

// Something else takes the place of libutil.
void occupy(const void* address) {
  char* page = reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(address) & ~uintptr_t{4095});
  mmap(page, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 100);
  for (int i = 0; i < 5; ++i) {
    void* plugin = harm::load("pty_plugin");
    const auto fork_by = reinterpret_cast<pid_t (*)(int*)>(dlsym(plugin, "plugin_forkpty"));
    harm::spend_fork();
    int terminal = -1;
    const pid_t child = fork_by(&terminal);
    if (child == 0) _exit(0);
    harm::reap_well(child);
    close(terminal);
    void* libutil = dlopen("libutil.so.1", RTLD_NOW | RTLD_NOLOAD);
    Dl_info there = {};
    if (libutil != nullptr) {
      dladdr(dlsym(libutil, "login_tty"), &there);
      dlclose(libutil);
    }
    dlclose(plugin);
    if (there.dli_fbase != nullptr) occupy(there.dli_fbase);
  }
  harm::say("5 times");
  return 0;
}
