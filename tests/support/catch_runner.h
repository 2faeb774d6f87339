// SPDX-License-Identifier: Apache-2.0
// The single-header versions of Catch2 take half a minute to compile. So Catch2's own code is
// compiled once, for all test programs.
#pragma once

/// Runs the tests that the arguments name. main() returns the result.
int run_catch(int argc, char** argv);
