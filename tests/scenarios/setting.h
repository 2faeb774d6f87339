// SPDX-License-Identifier: Apache-2.0
// What the scenarios share: where the library under test and the BLAS builds are, and the functions
// that run a program without and with the library.
#pragma once

#include <string>
#include <vector>

#include "../support/process.h"  // by its path: cli/ has a process.h too

namespace forksafe_test {

/// A build of a BLAS.
struct Blas {
  std::string path;
  std::string prefix;  ///< of its symbols
  std::string suffix;
  std::string library_path;  ///< for LD_LIBRARY_PATH: where its own dependencies are
  bool openmp;
};

/// The BLAS that FORKSAFE_TEST_BLAS names. If it is not installed, skips the test.
Blas blas_under_test();

/// The BLAS with that name in setting.cpp's table. If it is not installed, skips the test.
Blas blas_by_name(const std::string& name);

/// The last number of the version of Debian's OpenBLAS, from its file name: 29 for 0.3.29.
int patch_level(const Blas& blas);

/// Prints the reason and ends the test with status 77, which meson counts as skipped.
[[noreturn]] void skip(const std::string& reason);

/// Paths of the library under test, of a test program in the build folder, of a script in
/// tests/scenarios, and of Debian's Python.
std::string library_path();
std::string program(const std::string& name);
std::string script(const std::string& name);
std::string debian_python();
/// A Python that has ObsPy with Debian's numpy (scripts/common.sh, make_obspy_venv). If there is
/// none, skips the test.
std::string obspy_python();
std::string multiarch_folder();
/// The first path below the folder of fetched wheels that `pattern` (glob) matches. If there is
/// none, skips the test.
std::string in_wheels(const std::string& pattern);
/// The path of Intel's OpenMP in its wheel.
std::string intel_openmp();

/// The command that runs blas_forker with this BLAS and further arguments.
Command forker(const Blas& blas, const std::vector<std::string>& arguments);

/// The command with the library under test in LD_PRELOAD, before what is there already.
Command with_library(Command command);

/// Runs the command without the library. Fails the test unless the command gets stuck inside a BLAS
/// or OpenMP runtime, crashes, or ends with an error.
Outcome expect_trouble(const Command& command);

/// Runs the command with the library. Fails the test unless the command succeeds, with at least
/// `forks` forks.
Outcome expect_success(Command command, int forks);

/// Expects trouble from `without` and success from `with`. They run at the same time, and are the
/// same program, often with another number of forks.
void prove(const Command& without, const Command& with, int forks);

}  // namespace forksafe_test
