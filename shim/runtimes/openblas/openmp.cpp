// SPDX-License-Identifier: Apache-2.0
// OpenBLAS on OpenMP: Debian's libopenblas0-openmp and its like elsewhere.
//
// A fork breaks the OpenMP runtime below it (see gnu_openmp/). In OpenBLAS itself, a call in flight
// leaves these set in the child:
//
// - blas_buffer_inuse, for which the child then spins for ever (blas_server_omp.c, exec_blas);
// - from 0.3.27 on a static omp_lock_t and the counter under it (level3_thread.c);
// - the spin locks of the table of buffers (memory.c).
//
// So a fork waits until two parts are at rest. exec_blas, and the level-3 drivers between their
// OpenMP locks, stand under the calls gate. Calls are serial there anyway: exec_blas spins for its
// in-use flag. blas_memory_alloc and blas_memory_free stand under the brief gate. Threads of a
// parallel region use them, so this gate is closed when the calls are at rest.
//
// A call that outlives FORKSAFE_WAIT_MS goes on in the parent. In the child, the doors then say
// that the thread is inside a parallel region. So OpenBLAS computes with one thread and takes none
// of the stale locks (common_thread.h, num_cpu_avail), whatever number the program sets later.
#include "runtimes/openblas/openmp.h"

#include "options.h"
#include "runtimes/openblas/allocator.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

OpenBlasOpenMp* copy_of(const Module* module) {
  return static_cast<OpenBlasOpenMp*>(openblas_of(module));
}

// ---- doors, beside those of the allocator ----

struct ExecBlas {
  static constexpr const char* kName = "exec_blas";
  static int call(const Passage<int(long, void*)>& through, long count, void* queue) {
    const InCalls inside(through.module);
    return through(count, queue);
  }
};

struct GompParallel {
  static constexpr const char* kName = "GOMP_parallel";
  using Body = void (*)(void*);
  static void call(const Passage<void(Body, void*, unsigned, unsigned)>& through, Body body,
                   void* data, unsigned threads, unsigned flags) {
    const InCalls inside(through.module);
    through(body, data, threads, flags);
  }
};

struct MemoryFree {
  static constexpr const char* kName = "blas_memory_free";
  static void call(const Passage<void(void*)>& through, void* buffer) {
    const InBrief inside(through.module);
    through(buffer);
  }
};

struct OmpInitLock {
  static constexpr const char* kName = "omp_init_lock";
  static void call(const Passage<void(void*)>& through, void* lock) {
    through(lock);
    note(through.module, &copy_of(through.module)->omp_locks, lock);
  }
};

void renew_omp_locks(Module* module);

// A computation is in flight from the first OpenMP lock that a thread takes to the last one that it
// gives back.
struct OmpSetLock {
  static constexpr const char* kName = "omp_set_lock";
  static void call(const Passage<void(void*)>& through, void* lock) {
    Module* module = through.module;
    enter_calls(module);
    if (copy_of(module)->omp_locks_lost.load(std::memory_order_acquire)) renew_omp_locks(module);
    through(lock);
  }
};

struct OmpUnsetLock {
  static constexpr const char* kName = "omp_unset_lock";
  static void call(const Passage<void(void*)>& through, void* lock) {
    through(lock);
    leave_calls(through.module);
  }
};

struct OmpInParallel {
  static constexpr const char* kName = "omp_in_parallel";
  static int call(const Passage<int()>& through) {
    return copy_of(through.module)->one_thread ? 1 : through();
  }
};

struct OmpMaxThreads {
  static constexpr const char* kName = "omp_get_max_threads";
  static int call(const Passage<int()>& through) {
    Module* module = through.module;
    if (copy_of(module)->one_thread) return 1;
    const auto adapt = module->adapt.load(std::memory_order_relaxed);
    return adapt != nullptr ? adapt(module) : through();
  }
};

using Doors =
    DoorList<MutexLock, MutexUnlock, MutexDestroy, MapMemory, MemoryAlloc, MemoryFree, ExecBlas,
             GompParallel, OmpInitLock, OmpSetLock, OmpUnsetLock, OmpInParallel, OmpMaxThreads>;

// The thread is inside the calls gate, so no fork finds another thread here.
void renew_omp_locks(Module* module) {
  OpenBlasOpenMp* blas = copy_of(module);
  blas->omp_locks_renewal.lock();
  if (blas->omp_locks_lost.load()) {
    blas->omp_locks.each(Doors::behind<OmpInitLock>(*module));
    blas->omp_locks_lost.store(false, std::memory_order_release);
  }
  blas->omp_locks_renewal.unlock();
}

// ---- the number of threads ----

int runtime_threads(const Module* module) {
  const auto get = Doors::behind<OmpMaxThreads>(*module);
  return get != nullptr ? get() : 0;
}

constexpr int kUnknown = -1;

// Notes the numbers that the forking thread has. They rarely change, so the parent rarely dirties
// this page.
void note_threads(OpenBlasOpenMp* blas) {
  const int threads = runtime_threads(blas->module);
  if (blas->most_threads != threads) blas->most_threads = threads;
  const int now = *blas->cpu_number;
  if (blas->given_threads != now) blas->given_threads = now;
  if (blas->room < now) blas->room = now;
}

// ---- around a fork ----

// A call inside the gate needs malloc, and may need the locks that LLVM's and Intel's OpenMP take
// in their prepare handlers.
void prepare_first() {
  openblas_openmp_copies.each([](OpenBlasOpenMp* blas) {
    rest_early(blas->module, &blas->module->gates().calls, blas->module->calls_depth());
  });
}

void prepare_last() {
  openblas_openmp_copies.each([](OpenBlasOpenMp* blas) {
    Module* module = blas->module;
    if (options().child_threads == Options::kAuto) note_threads(blas);
    blas->set_torn(false);
    // Calls come first: the threads of a computation use the allocator.
    if (!rest_late(module, &module->gates().calls, module->calls_depth())) {
      tear(blas, "calls in flight outlived FORKSAFE_WAIT_MS");
    } else if (*module->calls_depth() != 0 || *module->brief_depth() != 0) {
      tear(blas, "the fork comes from inside a call");
    } else if (module->overflowed.load()) {
      tear(blas, "it has more locks than there is room for");
    }
    rest_allocator(blas);
  });
}

void parent() {
  openblas_openmp_copies.each([](OpenBlasOpenMp* blas) {
    blas->module->gates().brief.open();
    blas->module->gates().calls.open();
  });
}

void child() {
  openblas_openmp_copies.each([](OpenBlasOpenMp* blas) {
    Module* module = blas->module;
    if (!reset_module_in_child(module) && !blas->torn) {
      tear(blas, "a call went on while the fork was held up");
    }
    if (blas->omp_locks.size() != 0) {
      blas->omp_locks_renewal.reset();
      blas->omp_locks_lost.store(true);
    }
    // A copy at rest has lost nothing: its threads are the runtime's, and its buffers belong to no
    // particular thread. So it is not shut down. After a shutdown it would ask again how many
    // threads there may be at most (blas_omp_number_max, 0.3.24 and later), and the child could
    // compute with more threads than its parent.
    if (blas->torn || blas->one_thread) {
      // Marks the pool as gone: blas_server_avail = 0, buffers given back.
      shut_down_in_child(blas);
      blas->one_thread = true;
      module->adapt = nullptr;
      forksafe_state.modules[module->slot].one_thread = 1;
      *blas->cpu_number = 1;
      return;
    }
    give_buffers_back(blas);
    if (options().child_threads == Options::kAuto) {
      start_to_adapt(blas);
    } else if (options().child_threads > 0 && options().child_threads < *blas->cpu_number) {
      // The runtime gets that number too (gnu_openmp/). In 0.3.34 the runtime's number no longer
      // counts once the program has called openblas_set_num_threads: a team that is smaller than
      // OpenBLAS's own number then waits for ever for parts that no thread computes, in any
      // process.
      *blas->cpu_number = options().child_threads;
    }
  });
}

// OpenBLAS asks its runtime before each computation how many threads there are. If that differs
// from its own number, it takes the runtime's (num_cpu_avail, common_thread.h). So this function
// sets OpenBLAS's number and returns the same one to OpenBLAS. The runtime's own number, which the
// rest of the program uses too, stays. Some versions don't ask, or not while their number is 1
// (0.3.10 and before, 0.3.22 and 0.3.23). Therefore the door of the buffers calls this too: a
// computation passes it first.
int adapt(Module* module) {
  OpenBlasOpenMp* blas = copy_of(module);
  const int threads = runtime_threads(module);
  const int now = __atomic_load_n(blas->cpu_number, __ATOMIC_RELAXED);
  if (now == 0 || module->adapting.exchange(1) != 0) return threads;  // 0: the copy is being loaded
  if (blas->most_threads == 0) note_threads(blas);                    // loaded in this child
  int wanted = threads;
  if (blas->given_threads != kUnknown && now != blas->given_threads) {
    blas->program_chose = true;  // by openblas_set_num_threads
    module->adapt = nullptr;
  } else {
    // If the number is not the one at the fork, omp_set_num_threads has set it, in this thread.
    const int share = thread_share();
    if (threads == blas->most_threads && share < threads) wanted = share;
    // OpenBLAS has to learn a number from its runtime if it lacks buffers for so many threads: it
    // makes them then.
    blas->given_threads = wanted <= blas->room ? wanted : kUnknown;
    if (wanted <= blas->room && wanted != now) {
      __atomic_store_n(blas->cpu_number, wanted, __ATOMIC_RELAXED);
    }
  }
  module->adapting.store(0);
  return wanted;
}

void see(const ElfImage& image) {
  openblas_openmp_copies.each([&](OpenBlasOpenMp* blas) { see_beside(blas, image); });
}

}  // namespace

Copies<OpenBlasOpenMp, kMaxModules> openblas_openmp_copies;
const DoorSet openblas_openmp_doors = Doors::all();

OpenBlas* adopt_openmp_build(const ElfImage& image, const Internals& found) {
  OpenBlasOpenMp* blas = openblas_openmp_copies.next();
  blas->adapt = adapt;
  blas->doors_beside = Doors::all().without(Doors::index<MapMemory>());
  blas->omp_locks.place();
  if (!adopt_copy(blas, image, found, Doors::all(), true)) return nullptr;
  openblas_openmp_copies.add();
  return blas;
}

const Runtime openblas_openmp = {
    "OpenBLAS, OpenMP", see, nullptr, prepare_first, prepare_last, parent, child, nullptr,
};

}  // namespace forksafe
