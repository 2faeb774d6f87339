// SPDX-License-Identifier: Apache-2.0
// Forks early: before all constructors, in the constructor of a library that the program is linked
// with (see early.cpp), and in the program's own.
#include "harm.h"

extern int early_is_needed;

namespace {

// No library's constructor has run, not even that of a preloaded one.
void fork_before_constructors() {
  const pid_t child = fork();
  if (child == 0) {
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(0);
    int status = -1;
    waitpid(grandchild, &status, 0);
    _exit(status == 0 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  if (status != 0) _exit(1);
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
