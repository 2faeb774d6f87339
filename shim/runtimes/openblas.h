// SPDX-License-Identifier: Apache-2.0
// What OpenBLAS's two builds, on its own threads and on OpenMP, have in common: how a copy is
// recognised, and the few of its symbols that we know.
#pragma once

#include "doors/module.h"

namespace forksafe {

struct OpenBlas {
  Module* module;
  bool openmp;
  /// 321 for 0.3.21; 0 where the configuration string can't be read.
  int version;
  /// blas_thread_shutdown_, which the build wanted to run in the parent at each fork.
  void (*shutdown)();
  /// The allocator keeps a record of its own at the start of what it maps (memory.c, USE_TLS).
  bool buffers_have_headers;

  // Null where no symbol table names them.
  void (*memory_free)(void* buffer);  ///< blas_memory_free
  int* cpu_number;                    ///< blas_cpu_number: how many threads a call may use
  int* num_threads;                   ///< blas_num_threads: how many threads the pool has
  int max_threads;                    ///< what the build was made for
  bool exec_queue_is_named;           ///< .symtab has exec_queue_lock
  unsigned long* exec_queue_lock;     ///< the same, where it is a spin lock of one word

  /// The static CPU_AVAILABLE of each level-3 driver, and the value that they start with.
  static constexpr int kMaxCounters = 256;
  long* cpu_available[kMaxCounters];
  int cpu_available_count;
  long cpu_available_initial;
  /// Where they have no names: the most that one of them may lack in this process, by calls that
  /// were in flight at the forks that it comes from; and by those at the fork under way.
  int cpu_lost;
  int cpu_lost_next;

  // Under FORKSAFE_CHILD_THREADS=auto.
  int most_threads;    ///< what a child starts with: its share is never more; 0: not known yet
  int given_threads;   ///< what we have put into blas_cpu_number last
  int room;            ///< an OpenMP build's: how many threads it has buffers for
  bool program_chose;  ///< the program has set a number of its own in a child: it stays

  /// For the fork under way: the child can't be made whole, it computes with one thread. A copy
  /// that is adopted during a fork has nothing in flight.
  bool torn;

  /// Sets `torn`. It rarely changes, and a write would be a page fault at every fork.
  void set_torn(bool value) {
    if (torn != value) torn = value;
  }
};

/// `prepare` is about to be registered with pthread_atfork, with neither a parent nor a child
/// handler. If it is the shutdown of an OpenBLAS, blas_thread_shutdown_, that copy is adopted, and
/// the handler must not be passed on.
bool adopt_openblas(void (*prepare)());

/// `image` has just been loaded: where it calls an adopted copy that it is linked with, its calls
/// are led through the doors of that copy. Debian's libblas.so.3 and liblapack.so.3 have OpenBLAS's
/// interface in them, and call the rest of it in libopenblas.so.0: what a computation passes first
/// there stands in their own slots.
void see_beside_openblas(const ElfImage& image);

/// Calls `step(blas)` for each adopted copy of that build.
template <typename Step>
void each_openblas(bool openmp, Step step);

/// In the child's and the parent's memory: the fork under way can't make this copy's child whole.
void tear(OpenBlas* blas, const char* why);

/// Shuts the brief gate and waits until nobody is inside the copy's memory allocator.
void rest_allocator(OpenBlas* blas);

/// In a child: lets the copy mark its pool as gone. Its doors answer at once meanwhile.
void shut_down_in_child(OpenBlas* blas);

/// In a child, with the allocator at rest: gives back the buffers of threads that are gone. Up to
/// 0.3.26 each worker has one that the shutdown does not give back, and in every version a call in
/// flight has one: a chain of forks runs out of them ("too many memory regions").
void give_buffers_back(OpenBlas* blas);

/// The copy that `module` is.
OpenBlas* openblas_of(const Module* module);

/// Module::adapt of the two builds.
int adapt_openblas_threads(Module* module);
int adapt_openblas_openmp(Module* module);

/// In a child: has the copy adapt from here on, under FORKSAFE_CHILD_THREADS=auto.
void start_to_adapt(OpenBlas* blas);

/// Remembers what the environment says about threads, before the program can change it.
void remember_environment();

/// Notes, and tells the log, that a fork could not be made whole.
void report_degraded(const Module& module, const char* why);

extern OpenBlas openblas_copies[kMaxModules];
extern std::atomic<int> openblas_count;

inline OpenBlas* openblas_of(const Module* module) {
  OpenBlas* blas = openblas_copies;
  while (blas->module != module) ++blas;
  return blas;
}

template <typename Step>
void each_openblas(bool openmp, Step step) {
  const int count = openblas_count.load(std::memory_order_acquire);
  for (int i = 0; i < count; ++i) {
    if (openblas_copies[i].openmp == openmp) step(&openblas_copies[i]);
  }
}

}  // namespace forksafe
