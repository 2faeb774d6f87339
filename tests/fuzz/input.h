// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share. Each target is built by tests/soak/fuzz.py with libFuzzer and the
// address and undefined behaviour sanitizers. It includes the source file that it tests, so that
// this file is instrumented, and its internal functions can be called.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace fuzz {

/// A file in memory, for functions that take a path.
class File {
 public:
  const char* path(const void* data, size_t size) {
    if (ftruncate(fd_, 0) != 0 || pwrite(fd_, data, size, 0) != static_cast<ssize_t>(size)) abort();
    return path_;
  }
  File() { snprintf(path_, sizeof path_, "/proc/self/fd/%d", fd_); }

 private:
  int fd_ = memfd_create("input", 0);
  char path_[32];
};

/// Lets the compiler keep what computes `value`.
template <typename T>
void use(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

}  // namespace fuzz
