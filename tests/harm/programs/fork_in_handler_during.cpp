// SPDX-License-Identifier: Apache-2.0
// A signal handler forks while the program is inside the unwinder, dl_iterate_phdr or dlopen, and
// the child forks again (findings 1 and 4). A lock of the dynamic linker that the program held at
// that moment stays locked in the child for ever.
//
// Modes: throw, iterate, load.
#include <link.h>
#include <sys/time.h>

#include <stdexcept>

#include "harm.h"
#include "plugin.h"

namespace {

constexpr int kForks = 300;

std::atomic<int> handled{0};

void on_timer(int) {
  const int saved = errno;
  harm::fork_chain(3);
  ++handled;
  errno = saved;
}

int count_object(dl_phdr_info*, size_t, void* count) {
  ++*static_cast<long*>(count);
  return 0;
}

__attribute__((noinline)) void throw_from(int depth) {
  if (depth == 0) throw std::runtime_error("thrown");
  throw_from(depth - 1);
  asm volatile("");  // no tail call: the frames are there to be unwound
}

void work() {
  if (harm::mode_is("throw")) {
    try {
      throw_from(5);
    } catch (const std::runtime_error&) {
    }
  } else if (harm::mode_is("iterate")) {
    long count = 0;
    dl_iterate_phdr(count_object, &count);
  } else {
    dlclose(harm::load("plugin_a"));
  }
}

}  // namespace

void in_plugin_constructor(RegisterForkHandlers) {}
void in_plugin_destructor() {}

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 10L * kForks);
  work();
  harm::on_signal(SIGALRM, on_timer);
  for (int i = 0; i < kForks * harm::times; ++i) {
    itimerval when = {};
    when.it_value.tv_usec = 1 + i % 97;
    setitimer(ITIMER_REAL, &when, nullptr);
    while (handled <= i) work();
  }
  harm::say("%d forks of the handler ended well", kForks);
  return 0;
}
