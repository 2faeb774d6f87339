// SPDX-License-Identifier: Apache-2.0
// A signal handler forks while the program is inside the unwinder, dl_iterate_phdr or dlopen, and
// the child forks again. A lock of the dynamic linker that the program held at that moment stays
// locked in the child for ever.
//
// Modes: throw, iterate, load.
#include <sys/time.h>

#include "linker_lock.h"
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

}  // namespace

void in_plugin_constructor(RegisterForkHandlers) {}
void in_plugin_destructor() {}

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 10L * kForks);
  harm::take_linker_lock(harm::mode);
  harm::on_signal(SIGALRM, on_timer);
  for (int i = 0; i < kForks * harm::times; ++i) {
    itimerval when = {};
    when.it_value.tv_usec = 1 + i % 97;
    setitimer(ITIMER_REAL, &when, nullptr);
    while (handled <= i) harm::take_linker_lock(harm::mode);
  }
  harm::say("%d forks of the handler ended well", kForks);
  return 0;
}
