// SPDX-License-Identifier: Apache-2.0
// The main() of the unit tests. Like the preloaded library, it first remembers which objects were
// loaded at start.
#include "../support/catch_runner.h"
#include "elf/loaded_objects.h"

int main(int argc, char** argv) {
  forksafe::remember_startup_objects();
  return run_catch(argc, argv);
}
