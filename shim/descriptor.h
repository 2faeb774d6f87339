// SPDX-License-Identifier: Apache-2.0
// Reading files. libc's open, read and close are cancellation points: a thread that is cancelled in
// a door, or in the constructor of a library that is being loaded, would leave a gate or the linker
// locked. So these make the system calls themselves.
#pragma once

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

namespace forksafe {

/// A descriptor for reading that file, or -1. errno as of open(2).
inline int open_to_read(const char* path) {
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0));
}

/// As read(2).
inline long read_from(int fd, char* text, size_t size) { return syscall(SYS_read, fd, text, size); }

inline void close_descriptor(int fd) { syscall(SYS_close, fd); }

}  // namespace forksafe
