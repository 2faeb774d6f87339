// SPDX-License-Identifier: Apache-2.0
// What threads.cpp shows: the copies of OpenBLAS on its own threads.
#pragma once

#include "runtimes/copies.h"
#include "runtimes/openblas/openblas.h"

namespace forksafe {

struct OpenBlasThreads : OpenBlas {
  /// Threads that it created and did not join.
  std::atomic<int> workers{0};
  /// What the counters in `cpu_available` start with.
  long cpu_available_initial = 0;
  /// Where they have no names: the most that one of them may lack in this process, by calls that
  /// were in flight at the forks that it comes from; and by those at the fork under way.
  int cpu_lost = 0;
  int cpu_lost_next = 0;
};

extern Copies<OpenBlasThreads, kMaxModules> openblas_threads_copies;

/// All doors that such a copy may get.
extern const DoorSet openblas_threads_doors;

/// Null where it can't be adopted.
OpenBlas* adopt_threads_build(const ElfImage& image, const Internals& found);

}  // namespace forksafe
