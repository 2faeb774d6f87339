// SPDX-License-Identifier: Apache-2.0
// A library that a program is linked with. Its constructor forks, starts a thread that forks, and
// registers fork handlers, perhaps before forksafe's own constructor has run.
#include "harm.h"

namespace {

void* fork_in_thread(void*) {
  for (int i = 0; i < 20; ++i) harm::fork_once();
  return nullptr;
}

__attribute__((constructor)) void construct() {
  harm::begin(0, nullptr, 60, 1000);
  harm::fork_chain(3);
  pthread_atfork([] {}, [] {}, [] {});
  harm::fork_chain(3);
  pthread_join(harm::start_thread(fork_in_thread), nullptr);
  harm::fork_chain(3);
  harm::say("a linked library's constructor forked");
}

__attribute__((destructor)) void destruct() {
  harm::fork_chain(3);
  harm::say("a linked library's destructor forked");
}

}  // namespace

int early_is_needed = 1;
