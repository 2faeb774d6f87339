// SPDX-License-Identifier: Apache-2.0
// OpenBLAS with its own threads: Debian's default, every numpy and scipy wheel.
//
// OpenBLAS registers blas_thread_shutdown_ as a prepare handler. It tears the pool down in the
// parent at every fork. If a call is in flight in another thread, the handler never returns, or it
// destroys the pool while the call uses it (0.3.21 to 0.3.34, blas_server.c).
//
// The library captures that handler. The parent's pool is not touched. The child runs the handler
// while the doors of locks and joins return 0 at once. So OpenBLAS itself marks its pool as gone,
// and builds a new one at its next parallel call (exec_blas: blas_server_avail == 0). No structure
// of a version needs to be known.
//
// What another thread may be in the middle of at the fork, and what is done about it:
//
// - alloc_lock guards the table of buffers. It is held for microseconds, and stands under the brief
//   gate.
// - level3_lock (one for each level-3 driver, held for whole computations), server_lock and the
//   workers' locks: all that they guard is set anew by the handler and by blas_thread_init. The
//   child sets the locks that the doors have seen back to their initial state. It does the same
//   with the conditions: their waiters are gone, and a signal would be lost on one of them.
// - exec_queue_lock is a spin lock of one word (a mutex in 0.3.34). It is held while work is handed
//   out, and for as long as all workers are busy with another call. If .symtab names it (the
//   wheels), the child sets it free. In a stripped build (Debian's, conda's), the calls of
//   exec_blas_async through the PLT stand under the calls gate.
// - CPU_AVAILABLE (0.3.27 to 0.3.29): a level-3 call counts it down on its way in and up on its way
//   out. A child inherits what calls in flight have counted down, and could wait for it for ever.
//   If .symtab names the counter, the child sets it to its initial value. In a stripped build
//   (Debian 13's) only a bound is known: if so much could keep a call of the child waiting, the
//   child gets one thread.
#include "runtimes/openblas/threads.h"

#include <fcntl.h>
#include <linux/stat.h>

#include "options.h"
#include "runtimes/openblas/allocator.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

OpenBlasThreads* copy_of(const Module* module) {
  return static_cast<OpenBlasThreads*>(openblas_of(module));
}

// ---- doors, beside those of the allocator ----

struct CondWait {
  static constexpr const char* kName = "pthread_cond_wait";
  static int call(const Passage<int(pthread_cond_t*, pthread_mutex_t*)>& through,
                  pthread_cond_t* condition, pthread_mutex_t* mutex) {
    note(through.module, &through.module->conditions, condition);
    return through(condition, mutex);
  }
};

struct CondSignal {
  static constexpr const char* kName = "pthread_cond_signal";
  static int call(const Passage<int(pthread_cond_t*)>& through, pthread_cond_t* condition) {
    if (openblas_of(through.module)->shut) return 0;
    note(through.module, &through.module->conditions, condition);
    return through(condition);
  }
};

struct CondDestroy {
  static constexpr const char* kName = "pthread_cond_destroy";
  static int call(const Passage<int(pthread_cond_t*)>& through, pthread_cond_t* condition) {
    return openblas_of(through.module)->shut ? 0 : through(condition);
  }
};

struct ThreadCreate {
  static constexpr const char* kName = "pthread_create";
  using Start = void* (*)(void*);
  static int call(const Passage<int(pthread_t*, const pthread_attr_t*, Start, void*)>& through,
                  pthread_t* thread, const pthread_attr_t* attributes, Start start,
                  void* argument) {
    const int result = through(thread, attributes, start, argument);
    if (result == 0) copy_of(through.module)->workers.fetch_add(1, std::memory_order_relaxed);
    return result;
  }
};

struct ThreadJoin {
  static constexpr const char* kName = "pthread_join";
  static int call(const Passage<int(pthread_t, void**)>& through, pthread_t thread, void** value) {
    OpenBlasThreads* blas = copy_of(through.module);
    if (blas->shut) return 0;
    const int result = through(thread, value);
    if (result == 0) blas->workers.fetch_sub(1, std::memory_order_relaxed);
    return result;
  }
};

struct ExecBlasAsync {
  static constexpr const char* kName = "exec_blas_async";
  static int call(const Passage<int(long, void*)>& through, long position, void* queue) {
    const InCalls inside(through.module);
    return through(position, queue);
  }
};

using Doors = DoorList<MutexLock, MutexUnlock, MutexDestroy, CondWait, CondSignal, CondDestroy,
                       ThreadCreate, ThreadJoin, MapMemory, MemoryAlloc, ExecBlasAsync>;

// ---- what calls in flight leave behind ----

// How many threads this process has. A task directory has two links and one for each thread
// (proc(5)). Many, if there is no /proc.
int count_threads() {
  // Not stat: its name in libc is newer than glibc 2.31.
  struct statx status;
  const long failed = syscall(SYS_statx, AT_FDCWD, "/proc/self/task", 0, STATX_NLINK, &status);
  return failed == 0 ? static_cast<int>(status.stx_nlink) - 2 : 1024;
}

// How many threads may be inside a call: all but the forking one and the workers of all copies.
int count_other_threads() {
  int workers = 0;
  openblas_threads_copies.each([&](OpenBlasThreads* blas) { workers += blas->workers.load(); });
  return count_threads() - 1 - workers;
}

// For 0.3.27 to 0.3.29 without names: whether the counters that a child inherits may be too low for
// its calls. They start at the number of threads that the build was made for. Each thread other
// than the workers may be inside one level-3 call, and a call counts down by the whole pool at
// most.
bool may_lack_cpus(OpenBlasThreads* blas) {
  const bool counts = blas->version >= 327 && blas->version <= 329;
  if (!counts || blas->cpu_available_count != 0) return false;
  const int pool = blas->num_threads != nullptr && *blas->num_threads > *blas->cpu_number
                       ? *blas->num_threads
                       : *blas->cpu_number;
  const int lost = blas->cpu_lost + count_other_threads() * pool;
  if (blas->cpu_lost_next != lost) blas->cpu_lost_next = lost;
  const int wanted = options().child_threads > pool ? options().child_threads : pool;
  return lost != 0 && lost + wanted > blas->max_threads;
}

// FORKSAFE_POOL=drop: tears the pools down if their workers are the only other threads. Then no
// thread can be in a call. If there are other threads, the process would have several threads
// anyway.
void drop_pools() {
  if (count_other_threads() != 0) return;
  openblas_threads_copies.each([](OpenBlasThreads* blas) {
    if (blas->workers.load() == 0) return;
    blas->shutdown();
    blas->workers.store(0);
  });
}

// Whether the calls gate is needed: the child can't set exec_queue_lock free.
bool gates_calls(const OpenBlasThreads* blas) { return !blas->exec_queue_is_named; }

// A thread that hands out work may start the pool, which needs malloc.
void prepare_first() {
  if (options().drop_pool) drop_pools();
  openblas_threads_copies.each([](OpenBlasThreads* blas) {
    if (!gates_calls(blas)) return;
    rest_early(blas->module, &blas->module->gates().calls, blas->module->calls_depth());
  });
}

// Why the child can't be made whole; null where it can.
const char* what_tears(OpenBlasThreads* blas) {
  Module* module = blas->module;
  // If the internals of a stripped build don't call each other through the PLT, no door sees them.
  const bool queue_is_seen =
      blas->exec_queue_is_named || Doors::behind<ExecBlasAsync>(*module) != nullptr;
  if (*module->calls_depth() != 0 || *module->brief_depth() != 0) {
    return "the fork comes from inside a call";
  }
  if (!queue_is_seen && count_other_threads() > 0) {
    return "this build hides what calls in flight leave behind";
  }
  if (may_lack_cpus(blas)) return "this build hides how many processors its calls in flight hold";
  if (module->overflowed.load()) return "it has more locks than there is room for";
  return nullptr;
}

void prepare_last() {
  openblas_threads_copies.each([](OpenBlasThreads* blas) {
    Module* module = blas->module;
    blas->set_torn(false);
    const char* why = what_tears(blas);
    if (why == nullptr && gates_calls(blas) &&
        !rest_late(module, &module->gates().calls, module->calls_depth())) {
      why = "calls in flight outlived FORKSAFE_WAIT_MS";
    }
    if (why != nullptr) tear(blas, why);
    rest_allocator(blas);
  });
}

void parent() {
  openblas_threads_copies.each([](OpenBlasThreads* blas) {
    if (gates_calls(blas)) blas->module->gates().calls.open();
    blas->module->gates().brief.open();
  });
}

void child() {
  openblas_threads_copies.each([](OpenBlasThreads* blas) {
    if (!reset_module_in_child(blas->module) && !blas->torn) {
      tear(blas, "a call went on while the fork was held up");
    }
    blas->workers.store(0, std::memory_order_relaxed);
    if (blas->exec_queue_lock != nullptr && *blas->exec_queue_lock != 0) *blas->exec_queue_lock = 0;
    for (int i = 0; i < blas->cpu_available_count; ++i) {
      long* counter = blas->cpu_available[i];
      if (*counter != blas->cpu_available_initial) *counter = blas->cpu_available_initial;
    }
    if (blas->cpu_lost != blas->cpu_lost_next) blas->cpu_lost = blas->cpu_lost_next;
    shut_down_in_child(blas);
    int threads = options().child_threads;
    if (threads > blas->max_threads && blas->max_threads != 0) threads = blas->max_threads;
    uint32_t& one_thread = forksafe_state.modules[blas->module->slot].one_thread;
    if (blas->torn || one_thread != 0) {
      threads = 1;
      blas->module->adapt = nullptr;
      one_thread = 1;
    } else if (threads == Options::kAuto) {
      start_to_adapt(blas);
    }
    if (threads <= 0) return;
    *blas->cpu_number = threads;
    if (blas->num_threads != nullptr) *blas->num_threads = threads;
  });
}

// The interface takes a buffer, and with it alloc_lock, before it reads blas_cpu_number and divides
// a computation (interface/gemm.c, interface/lapack/getrf.c). A level-1 or level-2 routine takes
// its first lock later, and computes with the new number from its next call on. The pool keeps the
// size that the parent's had, so any number up to that can be used at once.
int adapt(Module* module) {
  OpenBlasThreads* blas = copy_of(module);
  if (module->adapting.exchange(1) != 0) return blas->given_threads;
  const int now = __atomic_load_n(blas->cpu_number, __ATOMIC_RELAXED);
  if (blas->most_threads == 0) blas->most_threads = blas->given_threads = now;
  if (now != blas->given_threads) {  // openblas_set_num_threads, or threadpoolctl by it
    blas->program_chose = true;
    module->adapt = nullptr;
  } else if (now != 0) {  // 0: the copy is being loaded
    const int share = thread_share();
    const int wanted = share < blas->most_threads ? share : blas->most_threads;
    if (wanted != now) {
      blas->given_threads = wanted;
      __atomic_store_n(blas->cpu_number, wanted, __ATOMIC_RELAXED);
    }
  }
  module->adapting.store(0);
  return blas->given_threads;
}

void see(const ElfImage& image) {
  openblas_threads_copies.each([&](OpenBlasThreads* blas) { see_beside(blas, image); });
}

}  // namespace

Copies<OpenBlasThreads, kMaxModules> openblas_threads_copies;
const DoorSet openblas_threads_doors = Doors::all();

OpenBlas* adopt_threads_build(const ElfImage& image, const Internals& found) {
  DoorSet doors = Doors::all();
  // Where both are named, the mapping function tells buffers from other mappings, and the child
  // sets the queue's lock free.
  if (found.alloc_mmap.begin != 0) doors = doors.without(Doors::index<MemoryAlloc>());
  if (found.exec_queue_is_named) doors = doors.without(Doors::index<ExecBlasAsync>());
  OpenBlasThreads* blas = openblas_threads_copies.next();
  blas->adapt = adapt;
  blas->doors_beside = doors.without(Doors::index<MapMemory>());
  if (found.cpu_available_count != 0) {
    // The constructor registers the handler before any call is made: this is their first value.
    blas->cpu_available_initial = *found.cpu_available[0];
  }
  if (!adopt_copy(blas, image, found, doors, !found.exec_queue_is_named)) return nullptr;
  openblas_threads_copies.add();
  return blas;
}

const Runtime openblas_threads = {
    "OpenBLAS, own threads", see, nullptr, prepare_first, prepare_last, parent, child, nullptr,
};

}  // namespace forksafe
