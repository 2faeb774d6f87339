// SPDX-License-Identifier: Apache-2.0
// A child forks again, registers fork handlers or loads a library, while another thread of the
// parent was, at the moment of the fork, inside the unwinder, dl_iterate_phdr, dlopen or fork
// (finding 1).
//
// Modes: WHAT_THE_THREAD_DOES/WHAT_THE_CHILD_DOES.
#include <link.h>

#include <stdexcept>
#include <string>

#include "harm.h"
#include "plugin.h"

namespace {

constexpr int kForks = 400;

std::string others, childs;
std::atomic<bool> ready{false};
std::string trace;

int count_object(dl_phdr_info*, size_t, void* count) {
  ++*static_cast<long*>(count);
  return 0;
}

__attribute__((noinline)) void throw_from(int depth) {
  if (depth == 0) throw std::runtime_error("thrown");
  throw_from(depth - 1);
  asm volatile("");  // no tail call: the frames are there to be unwound
}

void* other_thread(void*) {
  for (;;) {
    if (others == "throw") {
      try {
        throw_from(5);
      } catch (const std::runtime_error&) {
      }
    } else if (others == "iterate") {
      long count = 0;
      dl_iterate_phdr(count_object, &count);
    } else if (others == "load") {
      dlclose(harm::load("plugin_a"));
    } else {
      const pid_t child = harm::bounded_fork();
      if (child == 0) _exit(0);
      harm::reap_well(child);
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

// What the other thread loads registers nothing.
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
