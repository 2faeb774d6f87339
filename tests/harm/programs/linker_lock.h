// SPDX-License-Identifier: Apache-2.0
// Work during which a program holds a lock of the dynamic linker: in the unwinder, in
// dl_iterate_phdr, and in dlopen and dlclose. A child that is forked in the middle finds that lock
// held for ever.
#pragma once

#include <link.h>

#include <stdexcept>

#include "harm.h"

namespace harm {

inline int count_object(dl_phdr_info*, size_t, void* count) {
  ++*static_cast<long*>(count);
  return 0;
}

__attribute__((noinline)) inline void throw_from(int depth) {
  if (depth == 0) throw std::runtime_error("thrown");
  throw_from(depth - 1);
  asm volatile("");  // no tail call: the frames are there to be unwound
}

/// `how`: throw, iterate or load. Loading needs plugin_a, and the functions that plugin.h names.
inline void take_linker_lock(const char* how) {
  if (strcmp(how, "throw") == 0) {
    try {
      throw_from(5);
    } catch (const std::runtime_error&) {
    }
  } else if (strcmp(how, "iterate") == 0) {
    long count = 0;
    dl_iterate_phdr(count_object, &count);
  } else {
    dlclose(load("plugin_a"));
  }
}

}  // namespace harm
