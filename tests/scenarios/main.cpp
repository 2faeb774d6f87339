// SPDX-License-Identifier: Apache-2.0
// Each scenario is a test of its own in meson.build, so that one can be skipped with its reason.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

int main(int argc, char** argv) { return Catch::Session().run(argc, argv); }
