// SPDX-License-Identifier: Apache-2.0
// What a runtime does around a fork. Each runtime has a file or a folder of its own, and a line in
// the table, table.def. docs/adding-a-runtime.md adds one.
//
// Write the steps side by side: the reader then sees that what is taken is given back.
//
// Rules for every step around a fork:
// - It does not call the dynamic linker.
// - It does not allocate, except in the steps that may.
// - It does not use stdio, and leaves errno as it was.
// - It writes to as few pages as it can.
#pragma once

#include "elf/image.h"

namespace forksafe {

struct Runtime {
  const char* name;

  // Any step may be null.

  /// An object was loaded. It may be one that was seen before (is_its_turn). The linker's lock may
  /// be held: `seen_all`, which runs when all new objects were seen, does what needs that lock
  /// free.
  void (*see)(const ElfImage& image);
  void (*seen_all)();

  /// In the parent, before any other library's prepare handler: malloc and other libraries' locks
  /// are free. Calls in flight need them, so a wait for such calls belongs here. Other threads may
  /// fork at the same time, and so may a signal handler of this thread. Does not run if a fork
  /// reaches glibc without our fork().
  void (*prepare_first)();
  /// In the parent, after all other libraries' prepare handlers: for what takes microseconds. From
  /// here to `parent` no other thread takes one of these steps, unless it has taken the right to
  /// hold the gates away (docs/locks.md). Signals are blocked in this step, and in the next one.
  void (*prepare_last)();
  /// In the parent, before all other libraries' handlers.
  void (*parent)();
  /// In the child, before all other libraries' handlers. malloc may still be locked. Signals are
  /// blocked.
  void (*child_first)();
  /// In the child, after all other libraries' handlers: may allocate.
  void (*child_last)();

  // What a runtime needs that registers a fork handler of its own.

  /// The library starts: the program has not changed its environment yet.
  void (*start)() = nullptr;
  /// An object registers `prepare` with pthread_atfork, and neither a parent nor a child handler.
  /// True if it belongs to this runtime, whose steps replace it: it is not registered.
  bool (*replaces)(void (*prepare)()) = nullptr;
};

#define RUNTIME(name) extern const Runtime name;
#include "runtimes/table.def"
#undef RUNTIME

/// Shows every runtime an object that was loaded, for each_new_object. When all are shown, the step
/// seen_all is due.
void show_to_runtimes(const ElfImage& image);

/// Runs one step of every runtime, in the table's order.
void run_step(void (*Runtime::*step)());

/// Whether the steps of a runtime replace this prepare handler, which comes alone.
bool is_replaced(void (*prepare)());

}  // namespace forksafe
