// SPDX-License-Identifier: Apache-2.0
#include "catch_runner.h"

#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

int run_catch(int argc, char** argv) { return Catch::Session().run(argc, argv); }
