// SPDX-License-Identifier: Apache-2.0
// FORKSAFE_CHILD_THREADS=auto: children share the processors.
//
// All processes that come by fork from the one that was started with the library share a few pages
// of memory. Each child writes itself down there, and each that computes looks now and then which
// of them have used CPU time of late: those compute. A runtime asks for its share when it starts
// to compute, so a child adapts to siblings that come, go, are killed, or wait for work.
//
// The process that was started, the parent, keeps all its threads.
#pragma once

#include <cstdint>

namespace forksafe {

/// Makes the shared pages, and finds how many processors there are. At load: an OpenMP runtime that
/// binds threads (OMP_PROC_BIND) has not bound the first one to one processor yet. Without the
/// pages `auto` means `inherit`.
void start_fork_tree();

/// In a child, first of all.
void enter_fork_tree();

/// How many threads a runtime of this process should compute with now: processors / children that
/// compute, at least 1. 0 where it should keep what it has: in the parent, and without `auto`. May
/// be called from any thread, at any time: it costs some 10 ns, and one caller in all the tree pays
/// for a look at the children every kLookMs.
int thread_share();

/// A child computes if it has used an eighth of a processor or more between two looks, kLookMs or
/// more apart, and for kIdleMs after that; a new one for its first kIdleMs.
constexpr int64_t kLookMs = 10;
constexpr int64_t kIdleMs = 100;

}  // namespace forksafe
