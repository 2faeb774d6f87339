// SPDX-License-Identifier: Apache-2.0
// The callers of GNU OpenMP: the objects whose parallel regions get a number of threads of their
// own in children, under FORKSAFE_CHILD_THREADS.
#pragma once

#include "elf/image.h"

namespace forksafe {

/// How many copies of GNU OpenMP one process can have.
constexpr int kMaxOpenMpCopies = 16;

/// A copy's public functions about the number of threads, which belongs to the calling thread.
struct ThreadNumbers {
  int (*get_level)();
  int (*get_max_threads)();
  void (*set_num_threads)(int);
};

/// Leads the loaded objects that are linked with that copy through functions of ours: those by
/// which they start a parallel region, or ask how many threads one would have. Once for each copy,
/// and not while the linker's lock is held.
void watch_callers(const ElfImage& copy, const ThreadNumbers& numbers);

/// The same for one object, which was loaded after watch_callers().
void watch_caller(const ElfImage& copy, const ElfImage& object);

/// In a child, in its only thread: from here on the threads that it makes have the number that
/// FORKSAFE_CHILD_THREADS gives them; under `auto` this thread too. `fresh` is the number that a
/// new thread has by itself.
void start_child_threads(const ElfImage& copy, int fresh);

}  // namespace forksafe
