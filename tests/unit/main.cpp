// SPDX-License-Identifier: Apache-2.0
// The unit tests' main: as the preloaded library does, it remembers what was loaded at start.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

#include "elf/loaded_objects.h"

int main(int argc, char** argv) {
  forksafe::remember_startup_objects();
  return Catch::Session().run(argc, argv);
}
