// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>

namespace forksafe {

/// Keeps errno as the caller of a handler or a door left it. errno is written to only if it has
/// changed, because the first write to a page after a fork is a page fault.
class KeepErrno {
 public:
  KeepErrno() : saved_(errno) {}
  ~KeepErrno() {
    if (errno != saved_) errno = saved_;
  }
  KeepErrno(const KeepErrno&) = delete;
  KeepErrno& operator=(const KeepErrno&) = delete;

 private:
  int saved_;
};

}  // namespace forksafe
