// SPDX-License-Identifier: Apache-2.0
// Pages of memory. The kernel chooses their size: 4 kB on most machines; 4, 16 or 64 kB on arm64, 4
// or 64 kB on ppc64le. Functions that depend on it take it as an argument, so a test can pass
// another.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "keep_errno.h"

namespace forksafe {

/// The largest size that a kernel of this architecture may have, for what needs a page of its own.
#if defined(__aarch64__) || defined(__powerpc64__)
constexpr size_t kLargestPage = 65536;
#else
constexpr size_t kLargestPage = 4096;
#endif

/// The size here. libc keeps it in memory.
inline size_t page_size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

/// The start of the page that holds `address`.
constexpr uintptr_t page_of(uintptr_t address, size_t page) { return address & ~(page - 1); }

/// Whether a range consists of whole pages, so nothing else lies in them.
constexpr bool is_whole_pages(uintptr_t begin, size_t size, size_t page) {
  return size != 0 && begin % page == 0 && size % page == 0;
}

/// Whether every page from `begin` to `end` can be read. The kernel reads a new signal mask before
/// it finds that -1 is no way to set it (kernel/signal.c), so the mask stays as it is.
inline bool is_readable(uintptr_t begin, uintptr_t end) {
  const KeepErrno keep;
  const size_t page = page_size();
  for (uintptr_t p = page_of(begin, page); p < end; p += page) {
    if (syscall(SYS_rt_sigprocmask, -1, p, nullptr, sizeof(uint64_t)) != 0 && errno == EFAULT) {
      return false;
    }
  }
  return true;
}

}  // namespace forksafe
