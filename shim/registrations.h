// SPDX-License-Identifier: Apache-2.0
// What has registered fork handlers, to tell what LLVM's or Intel's OpenMP registers again in a
// child.
//
// They register their handlers when they start, and start anew in a child, which has inherited the
// handlers already. They know that, but forget it where KMP_INIT_AT_FORK is TRUE (tried with LLVM
// 11 and 14, and Intel 2026.2), as our command sets it. Then prepare runs twice at the child's own
// forks, and waits for a lock that it holds. Intel's OpenMP registers them in its child handler.
// Before glibc 2.36 fork holds the lock of the list while handlers run (bug 24595), so every child
// hangs there.
#pragma once

#include "elf/image.h"

namespace forksafe {

/// The arguments of __register_atfork.
struct Registration {
  void (*prepare)();
  void (*parent)();
  void (*child)();
  void* object;  ///< dso_handle: an address in the object, or null for the program
};

/// Whether it is of such an OpenMP, alone or linked into something else, and this process has
/// inherited it from its parent. Of all other objects false: a program may want its handlers to run
/// twice. False also where it is not known: there is room for 256.
bool is_inherited(const Registration& registration);

/// To be called when glibc has it. Any thread.
void remember(const Registration& registration);

/// To be called when an object is loaded, before its constructors. What lay at these addresses has
/// been unloaded, and glibc has dropped its handlers. Takes no lock. One thread at a time.
void see_loaded(const ElfImage& image);

}  // namespace forksafe
