// SPDX-License-Identifier: Apache-2.0
// Finds the files of forksafe itself, and edits LD_PRELOAD and LD_LIBRARY_PATH.
//
// The paths are relative to the folder of /proc/self/exe, so an installed tree or a build folder
// can be moved as a whole.
#pragma once

#include <string>
#include <string_view>

namespace forksafe::cli {

/// The path of the libforksafe.so that belongs to this executable. The file may not exist. Throws
/// Error if /proc/self/exe can't be read.
std::string library_path();

/// The same for the helper program forksafe-probe.
std::string probe_path();

/// Throws Error (status 2) unless the loader can preload `path`: a regular file that is complete
/// and loads, with no colon in its path. The check loads the library into this process,
/// switched off, and unloads it again.
void check_library(const std::string& path);

/// The value of LD_PRELOAD with `library` in front, once. An empty `library` only removes. Entries
/// that are the same string, the same file (device and inode) or another libforksafe.so are
/// removed: two copies in one process would take each other for libc and call each other forever.
/// Other entries keep their order. Entries are separated by colons or spaces (glibc, elf/rtld.c,
/// handle_preload_list); the result has colons. A library with a space in its path is named by its
/// file name: edit_library_path() lets the loader find it.
std::string edit_preload(std::string_view value, const std::string& library);

/// The value of LD_LIBRARY_PATH that edit_preload()'s entry needs: `value` itself, or with the
/// folder of `library` in front if its path has a space.
std::string edit_library_path(const std::string& value, const std::string& library);

}  // namespace forksafe::cli
