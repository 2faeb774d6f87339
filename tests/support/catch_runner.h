// SPDX-License-Identifier: Apache-2.0
// Catch2's own code in its single-header versions takes half a minute to compile: it is compiled
// once, for all test programs.
#pragma once

/// Runs the tests that the arguments name; the result is for main() to return.
int run_catch(int argc, char** argv);
