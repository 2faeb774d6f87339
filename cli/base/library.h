// SPDX-License-Identifier: Apache-2.0
// Where our own files are, and how the library gets into LD_PRELOAD.
//
// Both are found from the folder of /proc/self/exe, so an installed tree or a build folder can be
// moved as a whole.
#pragma once

#include <string>
#include <string_view>

namespace forksafe::cli {

/// libforksafe.so that belongs to this executable. Nothing is said about whether it exists. Throws
/// Error where /proc/self/exe can't be read.
std::string library_path();

/// The helper program forksafe-probe, as above.
std::string probe_path();

/// Throws Error (status 2) unless the loader can preload `path`: a whole regular file that loads,
/// whose path LD_PRELOAD does not split. It is loaded into this process and unloaded again,
/// switched off, so nothing stays behind.
void check_library(const std::string& path);

/// A value of LD_PRELOAD with `library` in front, once; without any where `library` is empty. Other
/// entries keep their order; those that are the same string, the same file (device and inode) or
/// another libforksafe.so go: two copies in one process would each take the other for libc and call
/// it for ever. Entries are separated by colons or spaces (glibc, elf/rtld.c, handle_preload_list);
/// the result has colons.
std::string edit_preload(std::string_view value, const std::string& library);

}  // namespace forksafe::cli
