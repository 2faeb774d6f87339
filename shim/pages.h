// SPDX-License-Identifier: Apache-2.0
// Pages of memory. The kernel chooses their size: 4 kB on most machines; 4, 16 or 64 kB on arm64, 4
// or 64 kB on ppc64le. Functions that depend on it take it as an argument, so a test can pass
// another.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>

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

}  // namespace forksafe
