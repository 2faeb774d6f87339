// SPDX-License-Identifier: Apache-2.0
// What a runtime does around a fork. Each has one file; runtimes.cpp has the table.
//
// To add a runtime: write its file beside openblas_threads.cpp, with these steps side by side so
// that the reader sees what is taken is given back, and add one line to the table.
//
// Rules for every step around a fork: no call of the dynamic linker, no allocation but where it
// says so, no stdio, errno as it was, as few pages written to as can be.
#pragma once

#include "elf/image.h"

namespace forksafe {

struct Runtime {
  const char* name;

  /// An object was loaded; it may be one that was seen before. The linker's lock is held: what
  /// needs it free is done in `seen_all`, when all new objects were seen. All steps may be null.
  void (*see)(const ElfImage& image, size_t tls_module, const ElfW(Phdr) * tls);
  void (*seen_all)();

  /// In the parent, before any other library's prepare handler: malloc and locks are free. What
  /// waits for calls in flight, which need them, waits here. Other threads may fork at the same
  /// time, and a signal handler of this thread. Does not run where a fork reaches glibc around us.
  void (*prepare_first)();
  /// In the parent, after all other libraries' prepare handlers: what is over in microseconds. From
  /// here to `parent` and `child_first`, no other thread is between these steps, and signals are
  /// blocked.
  void (*prepare_last)();
  /// In the parent, before all other libraries' handlers.
  void (*parent)();
  /// In the child, before all other libraries' handlers. malloc may be locked still.
  void (*child_first)();
  /// In the child, after all other libraries' handlers: may allocate.
  void (*child_last)();
};

extern const Runtime openblas_openmp;
extern const Runtime openblas_threads;
extern const Runtime blis;
extern const Runtime mkl;
extern const Runtime gnu_openmp;

/// Looks at the objects that were loaded since the last call. Only where each_new_object may run.
void look_at_loaded_objects();

/// Runs one step of every runtime, in the table's order.
void run_step(void (*Runtime::*step)());

}  // namespace forksafe
