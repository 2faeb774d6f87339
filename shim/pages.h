// SPDX-License-Identifier: Apache-2.0
// Pages of memory. The kernel chooses their size: 4 kB on most machines; 4, 16 or 64 kB on arm64, 4
// or 64 kB on ppc64le. Functions that depend on it take it as an argument, so a test can pass
// another.
#pragma once

#include <linux/futex.h>
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

/// How a word in memory compares with a value.
enum class Word { kEqual, kOther, kUnreadable };

/// Compares a word that may not be there. The kernel does it for a futex wait (futex/waitwake.c),
/// which ends at once, because the time is over. Valgrind reports system calls with arguments that
/// make no sense, so none of those serves.
inline Word compare_word(uintptr_t address, uint32_t value) {
  const KeepErrno keep;
  const long no_time[2] = {0, 0};
  if (syscall(SYS_futex, address, FUTEX_WAIT_PRIVATE, value, no_time, nullptr, 0) == 0) {
    return Word::kEqual;  // the kernel may wake a thread without a reason
  }
  if (errno == EFAULT) return Word::kUnreadable;
  return errno == ETIMEDOUT || errno == EINTR ? Word::kEqual : Word::kOther;
}

/// Whether every page from `begin` to `end` can be read.
inline bool is_readable(uintptr_t begin, uintptr_t end) {
  constexpr uint32_t kUnlikely = 0xa5c3f017;  // where it is equal, the wait takes longer
  const size_t page = page_size();
  for (uintptr_t p = page_of(begin, page); p < end; p += page) {
    if (compare_word(p, kUnlikely) == Word::kUnreadable) return false;
  }
  return true;
}

}  // namespace forksafe
