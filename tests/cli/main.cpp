// SPDX-License-Identifier: Apache-2.0
// The tests of the command. Each tag is a test of its own in meson.build, so that one can be
// skipped with its reason.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>

int main(int argc, char** argv) {
  // What the command is to set or to keep must not come from outside.
  for (const char* name : {"LD_PRELOAD", "FORKSAFE", "FORKSAFE_CHILD_THREADS", "FORKSAFE_LOG",
                           "FORKSAFE_POOL", "FORKSAFE_WAIT_MS"}) {
    unsetenv(name);
  }
  // A shell ignores them in what it starts with &.
  signal(SIGINT, SIG_DFL);
  signal(SIGQUIT, SIG_DFL);
  return Catch::Session().run(argc, argv);
}
