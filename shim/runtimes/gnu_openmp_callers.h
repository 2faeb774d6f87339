// SPDX-License-Identifier: Apache-2.0
// Who calls GNU OpenMP: the objects whose parallel regions have a number of threads of their own in
// children, under FORKSAFE_CHILD_THREADS.
#pragma once

#include "elf/image.h"
#include "runtimes/gnu_openmp.h"

namespace forksafe {

/// Has all loaded objects that are linked with that copy come by us when they start a parallel
/// region of that copy, or ask it how many threads one would have. Not while the linker's lock is
/// held, nor in a child.
void watch_callers(const ElfImage& copy, const ThreadNumbers& numbers);

/// In a child, in its only thread: the threads that it makes have the number that
/// FORKSAFE_CHILD_THREADS gives them from here on; under `auto` this one too. `fresh` is what a new
/// thread has by itself.
void start_child_threads(const ElfImage& copy, int fresh);

}  // namespace forksafe
