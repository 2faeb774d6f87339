// SPDX-License-Identifier: Apache-2.0
// An adopted copy of OpenBLAS: what its two builds, on its own threads (threads.h) and on OpenMP
// (openmp.h), have in common.
#pragma once

#include "doors/doors.h"
#include "runtimes/openblas/internals.h"

namespace forksafe {

struct OpenBlas : Internals {
  Module* module = nullptr;
  int (*adapt)(Module* module) = nullptr;  ///< the build's Module::adapt
  DoorSet doors_beside;                    ///< those that objects beside the copy get

  // For the doors of the memory allocator (allocator.h).

  /// The mutex that stands under the brief gate. Where no symbol names it, it is learnt from the
  /// first lock that is taken within blas_memory_alloc.
  std::atomic<const void*> brief_mutex{nullptr};
  /// Buffers that a child gives back: those that were mapped, or were given to calls.
  AddressSet buffers;
  /// Of an OpenMP build, those that a team has for the life of the process.
  AddressSet team_buffers;

  /// Up to 0.3.26, a build on its own threads: `buffers` has what was mapped.
  bool notes_mapped() const { return !openmp && version != 0 && version <= 326; }
  /// An OpenMP build: `buffers` has what blas_memory_alloc has given to calls.
  bool notes_given() const { return openmp && !buffers_have_headers; }
  /// Buffers hold packed parts of matrices during a call, and nothing between calls. A child gets
  /// them empty: then they cost a fork no page tables, and the parent's next call no copies of
  /// pages.
  bool wipes_buffers() const { return !buffers_have_headers; }

  /// The doors of locks, conditions and joins answer 0 at once: in a child, while `shutdown` runs.
  bool shut = false;

  // Under FORKSAFE_CHILD_THREADS=auto.
  int most_threads = 0;        ///< what a child starts with, the most it gets; 0: not known yet
  int given_threads = 0;       ///< what we have put into blas_cpu_number last
  bool program_chose = false;  ///< the program has set a number of its own in a child: it stays

  /// For the fork under way: the child can't be made whole, it computes with one thread. A copy
  /// that is adopted during a fork has nothing in flight.
  bool torn = false;

  /// Sets `torn`. It rarely changes, and a write would be a page fault at every fork.
  void set_torn(bool value) {
    if (torn != value) torn = value;
  }
};

inline OpenBlas* openblas_of(const Module* module) { return static_cast<OpenBlas*>(module->copy); }

/// Makes `blas` the record of a module with these doors, for the copy that was found in `image`,
/// and leads the objects beside it through its doors. Its `adapt` and `doors_beside` are set. False
/// where it can't be adopted.
bool adopt_copy(OpenBlas* blas, const ElfImage& image, const Internals& found, DoorSet doors,
                bool rests_early);

/// `image` has just been loaded. If it is linked with the copy and calls it, its calls are led
/// through doors of the copy. Debian's libblas.so.3 and liblapack.so.3 have OpenBLAS's interface
/// in them, and call the rest of it in libopenblas.so.0: what a computation passes first there
/// stands in their own slots.
void see_beside(OpenBlas* blas, const ElfImage& image);

/// Notes, and tells the log, that the fork under way can't make this copy's child whole.
void tear(OpenBlas* blas, const char* why);

/// Closes the brief gate and waits until nobody is inside the copy's memory allocator.
void rest_allocator(OpenBlas* blas);

/// In a child: lets the copy mark its pool as gone. Its doors answer at once meanwhile.
void shut_down_in_child(OpenBlas* blas);

/// In a child, with the allocator at rest: gives back the buffers of threads that are gone. Up to
/// 0.3.26 each worker has one that the shutdown does not give back, and in every version a call in
/// flight has one: a chain of forks runs out of them ("too many memory regions").
void give_buffers_back(OpenBlas* blas);

/// In a child: the copy adapts from here on, under FORKSAFE_CHILD_THREADS=auto.
void start_to_adapt(OpenBlas* blas);

}  // namespace forksafe
