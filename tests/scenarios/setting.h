// SPDX-License-Identifier: Apache-2.0
// What a scenario runs with: the library under test, the BLAS builds, and how a case is proved.
#pragma once

#include <string>
#include <vector>

#include "../support/process.h"  // by its path: cli/ has a process.h too

namespace forksafe_test {

/// A build of a BLAS that a case can be run with.
struct Blas {
  std::string path;
  std::string prefix;  ///< of its symbols
  std::string suffix;
  std::string library_path;  ///< for LD_LIBRARY_PATH: where its own dependencies are
  bool openmp;
};

/// The BLAS that FORKSAFE_TEST_BLAS names (see setting.cpp); ends the test with status 77 and the
/// reason when it can't be had.
Blas blas_under_test();

/// A BLAS by its name in setting.cpp's table; the same ending when it can't be had.
Blas blas_by_name(const std::string& name);

/// 29 of Debian's OpenBLAS 0.3.29, by its file's name.
int patch_level(const Blas& blas);

/// Ends the test with status 77: it can't be run here.
[[noreturn]] void skip(const std::string& reason);

/// Paths of the library under test, of a program beside it in the build folder, of a script in
/// tests/scenarios, and of Debian's Python.
std::string library_path();
std::string program(const std::string& name);
std::string script(const std::string& name);
std::string debian_python();
/// One that has ObsPy over Debian's numpy (scripts/common.sh, make_obspy_venv), or a skip.
std::string obspy_python();
std::string multiarch_folder();
/// What `pattern` (glob) matches first below the folder of downloaded wheels, or a skip.
std::string in_wheels(const std::string& pattern);

/// blas_forker with this BLAS and further arguments.
Command forker(const Blas& blas, const std::vector<std::string>& arguments);

/// The command with the library under test preloaded, before what is in its LD_PRELOAD already.
Command with_library(Command command);

/// Fails the test unless the command is stuck inside a BLAS or OpenMP runtime, or crashes, before
/// it has finished.
Outcome expect_trouble(Command command);

/// Fails the test unless the command succeeds under the library, with at least `forks` forks.
Outcome expect_success(Command command, int forks);

/// Both, of the same command: `few` without the library, then `many` under it.
void prove(const Command& without, const Command& with, int forks);

}  // namespace forksafe_test
