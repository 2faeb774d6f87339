// SPDX-License-Identifier: Apache-2.0
#include "base/library.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace forksafe::cli {
namespace {

namespace fs = std::filesystem;

fs::path own_folder() {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  if (size < 0 || static_cast<size_t>(size) == sizeof path) {
    throw Error("/proc/self/exe can't be read: is /proc mounted?");
  }
  return fs::path(std::string(path, static_cast<size_t>(size))).parent_path();
}

// The executable is in BUILD/cli, or in the bin folder of an installed tree (or of a copy of it).
std::string relative_to_us(const char* in_build_folder, const char* installed) {
  const fs::path folder = own_folder();
  const bool built = folder.filename() == "cli";
  return (folder / (built ? in_build_folder : installed)).lexically_normal();
}

// The loader would map pages that a truncated file does not have, and this process would die of
// SIGBUS. A linker writes the section headers last, so their end is the end of a complete file.
bool is_cut_off(const std::string& path, off_t size) {
  ElfW(Ehdr) header;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool whole = read(fd, &header, sizeof header) == static_cast<ssize_t>(sizeof header);
  close(fd);
  if (!whole || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return false;
  const size_t sections = static_cast<size_t>(header.e_shnum) * header.e_shentsize;
  return header.e_shoff > static_cast<size_t>(size) ||
         sections > static_cast<size_t>(size) - header.e_shoff;
}

// LD_PRELOAD splits a path at a space and has no escape (glibc 2.31 to 2.43, elf/rtld.c,
// handle_preload_list). LD_LIBRARY_PATH splits at colons and semicolons (elf/dl-load.c,
// fillin_rpath).
bool needs_library_path(const std::string& library) {
  return library.find(' ') != std::string::npos;
}

bool stands_for(const std::string& a, const std::string& b) {
  if (a == b || fs::path(a).filename() == "libforksafe.so") return true;
  // The loader searches its own folders for a name without a slash, not the current folder.
  if (a.find('/') == std::string::npos) return false;
  struct stat first, second;
  return stat(a.c_str(), &first) == 0 && stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace

std::string library_path() { return relative_to_us("../shim/libforksafe.so", FORKSAFE_LIBRARY); }

std::string probe_path() { return relative_to_us("forksafe-probe", FORKSAFE_PROBE); }

void check_library(const std::string& path) {
  if (path.find(':') != std::string::npos) {
    throw Error(path +
                ": LD_PRELOAD splits this path at the colon: install forksafe into a folder "
                "without one");
  }
  if (needs_library_path(path) && path.find(';') != std::string::npos) {
    throw Error(path +
                ": a path with a space and a semicolon can't be preloaded: install forksafe into "
                "a folder without them");
  }
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    throw Error(path + ": " + strerror(errno) + ": install forksafe again");
  }
  if (!S_ISREG(status.st_mode)) throw Error(path + ": not a file: install forksafe again");
  if (is_cut_off(path, status.st_size)) {
    throw Error(path + ": the file was cut off: install forksafe again");
  }
  // With FORKSAFE=0 and no other variable, the library's constructor registers no handlers, writes
  // no log, and prints no message about a bad value: the command prints that by itself. The library
  // is never unloaded, and does nothing here.
  char off[] = "FORKSAFE=0";
  char* quiet[] = {off, nullptr};
  char** const saved = environ;
  environ = quiet;
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  const std::string reason = handle == nullptr ? dlerror() : "";
  environ = saved;
  if (handle == nullptr) {
    // Most of the loader's messages begin with the path already.
    throw Error((reason.compare(0, path.size(), path) == 0 ? "" : path + ": ") + reason +
                ": install forksafe again");
  }
}

std::string edit_preload(std::string_view value, const std::string& library) {
  std::string result =
      needs_library_path(library) ? fs::path(library).filename().string() : library;
  while (!value.empty()) {
    const size_t end = std::min(value.find_first_of(" :"), value.size());
    const std::string entry(value.substr(0, end));
    if (!entry.empty() && !stands_for(entry, library)) {
      result += (result.empty() ? "" : ":") + entry;
    }
    value.remove_prefix(std::min(end + 1, value.size()));
  }
  return result;
}

std::string edit_library_path(const std::string& value, const std::string& library) {
  if (!needs_library_path(library)) return value;
  std::string folder = fs::path(library).parent_path();
  if (value.empty()) return folder;  // an empty entry after it would be the current folder
  const bool is_first = (value + ":").compare(0, folder.size() + 1, folder + ":") == 0;
  return is_first ? value : folder + ":" + value;
}

}  // namespace forksafe::cli
