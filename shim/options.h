// SPDX-License-Identifier: Apache-2.0
// The options, read once from the environment.
#pragma once

#include <cstddef>

namespace forksafe {

struct Options {
  /// FORKSAFE: 0 switches everything off.
  bool enabled = true;
  /// FORKSAFE_WAIT_MS: how many milliseconds a fork waits at most for calls in flight.
  int wait_ms = 1000;
  /// FORKSAFE_POOL=drop: tear down OpenBLAS's pool at each fork, as OpenBLAS does by itself.
  bool drop_pool = false;
  /// FORKSAFE_CHILD_THREADS: how many threads BLAS and OpenMP have in children. kInherit: as many
  /// as in the parent. kAuto: see sharing/fork_tree.h.
  static constexpr int kInherit = 0;
  static constexpr int kAuto = -1;
  int child_threads = kInherit;
  /// FORKSAFE_LOG: "stderr" or a path; null means no log.
  const char* log = nullptr;
  /// Whether files may be opened: the log, and objects whose .symtab has names that .dynsym lacks.
  bool opens_files = true;
};

/// Takes an option's message: one line without its newline.
using Complain = void (*)(const char* line);

/// Reads the environment through `get` (getenv, or a test's function). For a value that can't be
/// read, calls `complain` once and keeps the default.
Options read_options(const char* (*get)(const char* name), Complain complain);

/// The options of this process; the defaults until init_options() has run. In secure execution
/// (setuid, setgid, capabilities: AT_SECURE of getauxval(3)) no variable is honoured, no file is
/// opened and nothing is printed: the user who set the variables may lack the rights that the
/// process has.
const Options& options();
void init_options();

}  // namespace forksafe
