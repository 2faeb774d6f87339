// SPDX-License-Identifier: Apache-2.0
// What openmp.cpp shows: the copies of OpenBLAS on OpenMP.
#pragma once

#include "runtimes/copies.h"
#include "runtimes/openblas/openblas.h"

namespace forksafe {

struct OpenBlasOpenMp : OpenBlas {
  /// OpenMP locks that it initialised. A child does so again, at the first that it takes: LLVM's
  /// and Intel's OpenMP forget every lock at a fork, and crash at one from before it (OpenBLAS has
  /// such locks from 0.3.27 on).
  AddressSet omp_locks;
  Atomic<bool> omp_locks_lost{false};
  Lock omp_locks_renewal;
  /// In a child that could not be made whole: the doors answer that one thread is all there is.
  bool one_thread = false;
  /// Under FORKSAFE_CHILD_THREADS=auto: how many threads it has buffers for.
  int room = 0;
};

extern Copies<OpenBlasOpenMp, kMaxModules> openblas_openmp_copies;

/// All doors of such a copy.
extern const DoorSet openblas_openmp_doors;

/// Null where it can't be adopted.
OpenBlas* adopt_openmp_build(const ElfImage& image, const Internals& found);

}  // namespace forksafe
