// SPDX-License-Identifier: Apache-2.0
// Runs the tests of the command. Each tag is a separate test in meson.build, so that one of them
// can be skipped with its reason.
#include <csignal>
#include <cstdlib>
#include <initializer_list>

#include "../support/catch_runner.h"

int main(int argc, char** argv) {
  // The variables that the command sets or keeps must not come from the environment of the tests.
  for (const char* name : {"LD_PRELOAD", "FORKSAFE", "FORKSAFE_CHILD_THREADS", "FORKSAFE_LOG",
                           "FORKSAFE_POOL", "FORKSAFE_WAIT_MS"}) {
    unsetenv(name);
  }
  // A shell starts background commands with these signals ignored.
  signal(SIGINT, SIG_DFL);
  signal(SIGQUIT, SIG_DFL);
  return run_catch(argc, argv);
}
