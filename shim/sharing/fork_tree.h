// SPDX-License-Identifier: Apache-2.0
// FORKSAFE_CHILD_THREADS=auto: children share the processors.
//
// The process that was started with the library, the parent, shares a few pages of memory with all
// its descendants. Each child has an entry there. From time to time, a child that computes looks
// which children have used CPU time lately: those count as computing. A runtime asks for its share
// when it starts to compute. So a child adapts to siblings that start, end, are killed, or wait for
// work.
//
// The parent keeps all its threads.
#pragma once

#include <cstdint>

namespace forksafe {

/// Makes the shared pages, and finds how many processors there are. To be called at load, before an
/// OpenMP runtime that binds threads (OMP_PROC_BIND) has bound the first one to one processor. If
/// the pages can't be made, `auto` means `inherit`.
void start_fork_tree();

/// To be called in a child, before anything else.
void enter_fork_tree();

/// How many threads a runtime of this process should compute with now: processors / children that
/// compute, at least 1. 0 if it should keep its number: in the parent, and without `auto`. Any
/// thread may call it at any time. It costs some 10 ns. Every kLookMs, one caller among all
/// processes also looks at the children.
int thread_share();

/// A child counts as computing if it has used an eighth of a processor or more between two looks,
/// which are kLookMs or more apart, and for kIdleMs after that. A new child counts as computing for
/// its first kIdleMs.
constexpr int64_t kLookMs = 10;
constexpr int64_t kIdleMs = 100;

}  // namespace forksafe
