// SPDX-License-Identifier: Apache-2.0
// The unit tests' main: as the preloaded library does, it remembers what was loaded at start.
#include "../support/catch_runner.h"
#include "elf/loaded_objects.h"

int main(int argc, char** argv) {
  forksafe::remember_startup_objects();
  return run_catch(argc, argv);
}
