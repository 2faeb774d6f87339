// SPDX-License-Identifier: Apache-2.0
// The options, read once from the environment.
#pragma once

#include <cstddef>

namespace forksafe {

struct Options {
  /// FORKSAFE: 0 switches everything off.
  bool enabled = true;
  /// FORKSAFE_WAIT_MS: the most milliseconds that a fork waits for calls in flight.
  int wait_ms = 1000;
  /// FORKSAFE_POOL=drop: tear OpenBLAS's pool down at each fork, as it does by itself.
  bool drop_pool = false;
  /// FORKSAFE_CHILD_THREADS: threads of BLAS and OpenMP in children; kInherit means as in the
  /// parent, kAuto what sharing/fork_tree.h says.
  static constexpr int kInherit = 0;
  static constexpr int kAuto = -1;
  int child_threads = kInherit;
  /// FORKSAFE_LOG: "stderr" or a path; null means no log.
  const char* log = nullptr;
  /// Files may be opened: the log, and the objects whose .symtab names what .dynsym does not.
  bool opens_files = true;
};

/// Where an option's message goes: one line without its newline.
using Complain = void (*)(const char* line);

/// Reads the environment through `get` (getenv, or a test's). A value that can't be read is named
/// in one call of `complain`, and the default holds.
Options read_options(const char* (*get)(const char* name), Complain complain);

/// The options of this process; the defaults until init_options() has run. In secure execution
/// (setuid, setgid, capabilities: AT_SECURE of getauxval(3)) no variable is honoured, no file is
/// opened and nothing is printed: the user who set the variables is not the one who may do these
/// things.
const Options& options();
void init_options();

}  // namespace forksafe
