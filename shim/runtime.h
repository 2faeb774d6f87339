// SPDX-License-Identifier: Apache-2.0
// What a runtime does around a fork. Each has one file; runtimes.cpp has the table.
//
// To add a runtime: write its file beside openblas_threads.cpp, with these steps side by side so
// that the reader sees what is taken is given back, and add one line to the table.
//
// Rules for every step: no allocation, no stdio, errno as it was, as few pages written to as can
// be. The dynamic linker may be asked in prepare_first only, and never in a child.
#pragma once

#include "elf_image.h"

namespace forksafe {

struct Runtime {
  const char* name;

  /// The set of loaded objects has changed: forget what was found, then see each object. The
  /// linker's lock is held in `see`; what needs it free is done in `seen_all`. All may be null.
  void (*forget)();
  void (*see)(const ElfImage& image, size_t tls_module, const ElfW(Phdr) * tls);
  void (*seen_all)();

  /// In the parent, before any other library's prepare handler: malloc and locks are free. What
  /// waits for calls in flight, which need them, waits here.
  void (*prepare_first)();
  /// In the parent, after all other libraries' prepare handlers: what is over in microseconds.
  void (*prepare_last)();
  /// In the parent, before all other libraries' handlers.
  void (*parent)();
  /// In the child, before all other libraries' handlers. malloc may be locked still.
  void (*child_first)();
  /// In the child, after all other libraries' handlers.
  void (*child_last)();
};

extern const Runtime openblas_openmp;
extern const Runtime openblas_threads;
extern const Runtime blis;
extern const Runtime mkl;
extern const Runtime gnu_openmp;

/// Looks at the loaded objects if their set changed since the last call.
void look_at_loaded_objects();

/// Runs one step of every runtime, in the table's order.
void run_step(void (*Runtime::*step)());

}  // namespace forksafe
