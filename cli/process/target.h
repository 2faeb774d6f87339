// SPDX-License-Identifier: Apache-2.0
// Finds the ELF file that a command runs, and checks whether a library can be preloaded into it.
#pragma once

#include <string>

namespace forksafe::cli {

/// The file that execvp would run for `name`: `name` itself if it is a path, otherwise the file
/// that a search in PATH finds. Throws Error with the status of a shell: 127 if there is no such
/// file, 126 if it can't be run.
std::string find_command(const std::string& name);

/// The ELF file that the kernel loads for the executable `path`: the last interpreter of its `#!`
/// chain, or that of /bin/sh if execvp would use it. Throws Error, status 127 if an interpreter is
/// missing and 126 if one can't be run (the same as bash 5.2).
std::string find_program(const std::string& path);

/// Throws Error (status 2) if the loader would not preload our library into the ELF file `path`:
/// the file has no loader, is for another architecture or for musl, or the loader ignores
/// LD_PRELOAD for it (AT_SECURE). A file that can't be read passes: the kernel reports it.
void check_program(const std::string& path);

/// find_command, find_program and check_program, one after the other.
void check_target(const std::string& name);

/// The exit status that a shell gives if exec fails with this errno: 127 or 126.
int exec_status(int error);

}  // namespace forksafe::cli
