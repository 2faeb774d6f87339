// SPDX-License-Identifier: Apache-2.0
// What a command really is: the ELF file behind a name, and whether a preloaded library can work
// in it.
#pragma once

#include <string>

namespace forksafe::cli {

/// The file that execvp would run for `name`: a path as it is, a bare name searched in PATH. Throws
/// Error, status 127 where there is none and 126 where it can't be run, as a shell does.
std::string find_command(const std::string& name);

/// The ELF file that the kernel loads for the executable `path`: the last interpreter of its `#!`
/// chain, or /bin/sh's where execvp would fall back to it. Throws Error, status 127 where an
/// interpreter is missing and 126 where one can't be run (bash 5.2 has the same).
std::string find_program(const std::string& path);

/// Throws Error (status 2) where the loader would not preload our library into the ELF file `path`:
/// no loader, another architecture, musl, or a program for which it ignores LD_PRELOAD (AT_SECURE).
/// A file that can't be read is left to the kernel.
void check_program(const std::string& path);

/// All three.
void check_target(const std::string& name);

/// The status of a shell for a command that exec refused with this errno: 127 or 126.
int exec_status(int error);

}  // namespace forksafe::cli
