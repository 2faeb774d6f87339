// SPDX-License-Identifier: Apache-2.0
// Forks early: before all constructors, in the constructor of a library that the program is linked
// with (see early.cpp), and in the program's own.
#include "harm.h"

extern int early_is_needed;

namespace {

// No library's constructor has run, not even that of a preloaded one.
void fork_before_constructors() {
  if (!harm::fork_twice(fork)) _exit(1);
}

__attribute__((section(".preinit_array"),
               used)) void (*const before_constructors)() = fork_before_constructors;

__attribute__((constructor)) void construct() {
  harm::fork_chain(3);
  harm::say("the program's constructor forked");
}

}  // namespace

int main() {
  harm::fork_chain(3);
  harm::say("main() forked");
  return early_is_needed == 1 ? 0 : 1;
}
