// SPDX-License-Identifier: Apache-2.0
// Who calls GNU OpenMP: the objects whose parallel regions adapt to their process's share, under
// FORKSAFE_CHILD_THREADS=auto.
#pragma once

#include "elf_image.h"
#include "gnu_openmp.h"

namespace forksafe {

/// Has all loaded objects that are linked with that copy come by us when they start a parallel
/// region of that copy, or ask it how many threads one would have. Not while the linker's lock is
/// held, nor in a child.
void watch_callers(const ElfImage& copy, const ThreadNumbers& numbers);

/// In a child, in its only thread: what its threads start with. `fresh` is what a new thread has,
/// by the environment; `now` what this one has.
void start_to_adapt_callers(const ElfImage& copy, int fresh, int now);

}  // namespace forksafe
