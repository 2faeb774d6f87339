// SPDX-License-Identifier: Apache-2.0
// The main() of test programs that have nothing to prepare. Each of their cases is a test of its
// own in meson.build, so that one can be skipped with its reason.
#include "catch_runner.h"

int main(int argc, char** argv) { return run_catch(argc, argv); }
