// SPDX-License-Identifier: Apache-2.0
// Signals, for the few microseconds in which a signal handler must not find our work half done.
#pragma once

#include <csignal>
#include <cstdint>

#include "futex.h"

namespace forksafe {

/// A signal in the kernel's signal set, which has one bit for each of 64 signals.
constexpr uint64_t signal_bit(int signal) { return uint64_t{1} << (signal - 1); }

/// What block_signals returns if a filter of system calls forbids it. No mask of the kernel has
/// this signal.
constexpr uint64_t kNotBlocked = signal_bit(SIGKILL);

/// Blocks signals in the calling thread, and returns the mask to restore, or kNotBlocked. It leaves
/// faults as the program has them, which handles them or has blocked them. So it does with glibc's
/// signal 33 (SIGSETXID, __SIGRTMIN + 1): the thread that calls setuid sends it to all others, and
/// waits for them.
inline uint64_t block_signals() {
  constexpr uint64_t kLeftAlone = signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGILL) |
                                  signal_bit(SIGFPE) | signal_bit(SIGTRAP) | signal_bit(SIGSYS) |
                                  signal_bit(33);
  uint64_t before = kNotBlocked;
  add_to_signal_mask(~kLeftAlone, &before);
  return before;
}

inline void restore_signals(uint64_t mask) {
  if (mask != kNotBlocked) set_signal_mask(mask);
}

}  // namespace forksafe
