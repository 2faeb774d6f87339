// SPDX-License-Identifier: Apache-2.0
// The main() of test programs that need no preparation. meson.build runs each of their cases as a
// test of its own, so a case can be skipped with a reason.
#include "catch_runner.h"

int main(int argc, char** argv) { return run_catch(argc, argv); }
