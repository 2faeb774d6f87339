// SPDX-License-Identifier: Apache-2.0
// A thread of the parent is inside the unwinder, dl_iterate_phdr, dlopen or fork while the program
// forks. The child forks again, registers fork handlers or loads a library.
//
// Modes: WHAT_THE_THREAD_DOES/WHAT_THE_CHILD_DOES.
#include <string>

#include "linker_lock.h"
#include "plugin.h"

namespace {

constexpr int kForks = 400;

std::string others, childs;
std::atomic<bool> ready{false};
std::string trace;

void* other_thread(void*) {
  for (;;) {
    if (others == "fork") {
      harm::fork_once();
    } else {
      harm::take_linker_lock(others.c_str());
    }
    ready = true;
  }
}

void forks_again() { harm::fork_chain(3); }

void registers_handlers() {
  pthread_atfork([] { trace += "p1 "; }, [] { trace += "r1 "; }, [] { trace += "c1 "; });
  pthread_atfork([] { trace += "p2 "; }, [] { trace += "r2 "; }, [] { trace += "c2 "; });
  const pid_t child = harm::bounded_fork();
  if (child == 0) {
    harm::expect(trace == "p2 p1 c1 c2 ", "the order of child handlers");
    _exit(0);
  }
  harm::reap_well(child);
  harm::expect(trace == "p2 p1 r1 r2 ", "the order of parent handlers");
}

void loads_a_library() {
  for (int i = 0; i < 2; ++i) {
    void* library = harm::load("plugin_b");
    harm::fork_chain(2);
    dlclose(library);
    harm::fork_chain(2);
  }
}

}  // namespace

// The library that the other thread loads registers no fork handlers.
void in_plugin_constructor(RegisterForkHandlers register_handlers) {
  if (childs == "load") register_handlers([] {}, [] {}, [] {});
}
void in_plugin_destructor() {}

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 200000);
  const std::string mode = harm::mode;
  others = mode.substr(0, mode.find('/'));
  childs = mode.substr(mode.find('/') + 1);
  if (childs == "load" && others == "throw" && !harm::glibc_at_least(35)) {
    harm::skip("before glibc 2.35 the unwinder takes a lock of the linker that dlopen waits for");
  }
  harm::start_thread(other_thread);
  while (!ready) harm::pause_us(100);
  for (int i = 0; i < kForks * harm::times; ++i) {
    const pid_t child = harm::bounded_fork();
    if (child == 0) {
      harm::watch(30);
      if (childs == "fork") forks_again();
      if (childs == "register") registers_handlers();
      if (childs == "load") loads_a_library();
      _exit(0);
    }
    harm::reap_well(child);
  }
  harm::say("%d children that fork again ended well", kForks);
  _exit(0);  // the other thread goes on
}
