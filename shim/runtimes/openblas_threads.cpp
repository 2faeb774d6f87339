// SPDX-License-Identifier: Apache-2.0
// OpenBLAS with its own threads: Debian's default, every numpy and scipy wheel.
//
// By itself it registers blas_thread_shutdown_ as a prepare handler, which tears the pool down in
// the parent at every fork. With a call in flight in another thread that never returns, or pulls
// the pool from under the call (0.3.21 to 0.3.34, blas_server.c).
//
// Here the handler is captured. The parent's pool is not touched; the child runs the handler, with
// the doors answering for locks and joins, so that OpenBLAS itself marks its pool as gone and
// builds a new one at its next parallel call (exec_blas: blas_server_avail == 0). No structure of
// a version needs to be known. What another thread may have been in the middle of at the fork:
//
// - alloc_lock: the table of buffers. The brief gate brings it to rest: microseconds.
// - level3_lock (one for each level-3 driver, held for whole computations), server_lock, the
//   workers' locks: they guard nothing that the handler and blas_thread_init do not set anew. The
//   child puts those that the doors have seen back to their initial state, and the conditions:
//   their waiters are gone, and a signal would go to one of them.
// - exec_queue_lock: a spin lock of one word, held while work is handed out, and for as long as
//   all workers are busy with another call (a mutex in 0.3.34). The child sets it free where
//   .symtab names it (the wheels). Where a build is stripped, its calls of exec_blas_async through
//   its PLT stand under the calls gate (Debian's, conda's).
// - CPU_AVAILABLE (0.3.27 to 0.3.29): a level-3 call counts it down on its way in and up on its
//   way out. A child would inherit the deficit of calls in flight, and wait for it to go for ever.
//   The child sets it to its initial value where .symtab names it. Where a build is stripped
//   (Debian 13's) the deficit is bounded: only where it could keep a child's call waiting has the
//   child one thread.
#include <fcntl.h>
#include <linux/stat.h>

#include "options.h"
#include "runtimes/openblas.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

template <typename Step>
void each(Step step) {
  each_openblas(false, step);
}

// Threads of this process (proc(5): a task directory has two links and one for each thread); many
// where there is no /proc.
int count_threads() {
  // Not stat: its name in libc is newer than glibc 2.31.
  struct statx status;
  const long failed = syscall(SYS_statx, AT_FDCWD, "/proc/self/task", 0, STATX_NLINK, &status);
  return failed == 0 ? static_cast<int>(status.stx_nlink) - 2 : 1024;
}

// Those that may be inside a call: all but the forking one and the workers of all copies.
int count_other_threads() {
  int workers = 0;
  each([&](OpenBlas* blas) { workers += blas->module->workers.load(); });
  return count_threads() - 1 - workers;
}

// 0.3.27 to 0.3.29 without names: whether the counters that a child inherits may be too low for its
// calls. They start at the number of threads that the build was made for, and each thread other
// than the workers may be inside one level-3 call, which counts at most the whole pool down.
bool may_lack_cpus(OpenBlas* blas) {
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

// FORKSAFE_POOL=drop: the pool is torn down if its workers are the only other threads. Nobody can
// be in a call then; and with other threads about, the process would not look single-threaded.
void drop_pools() {
  if (count_other_threads() != 0) return;
  each([](OpenBlas* blas) {
    if (blas->module->workers.load() == 0) return;
    blas->shutdown();
    blas->module->workers.store(0);
  });
}

// Whether the calls gate is needed: the child can't set exec_queue_lock free.
bool gates_calls(const OpenBlas* blas) { return !blas->exec_queue_is_named; }

// To hand out work may start the pool, which needs malloc.
void prepare_first() {
  if (options().drop_pool) drop_pools();
  each([](OpenBlas* blas) {
    if (!gates_calls(blas)) return;
    rest_early(blas->module, &blas->module->gates().calls, blas->module->calls_depth());
  });
}

// Why the child can't be made whole; null where it can.
const char* what_tears(OpenBlas* blas) {
  Module* module = blas->module;
  // Of a stripped build whose internals don't call each other through the PLT nothing is seen.
  const bool queue_is_seen = blas->exec_queue_is_named ||
                             module->behind[static_cast<size_t>(Door::kExecBlasAsync)] != nullptr;
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
  each([](OpenBlas* blas) {
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
  each([](OpenBlas* blas) {
    if (gates_calls(blas)) blas->module->gates().calls.open();
    blas->module->gates().brief.open();
  });
}

void child() {
  each([](OpenBlas* blas) {
    if (!reset_module_in_child(blas->module) && !blas->torn) {
      tear(blas, "a call went on while the fork was held up");
    }
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

}  // namespace

// The interface reads blas_cpu_number when it divides a computation, after it has taken a buffer
// and with it alloc_lock (interface/gemm.c, interface/lapack/getrf.c; a level-1 or level-2 routine
// comes by a lock later, and computes with the new number from its next call on). The pool keeps
// the size that the parent's had, so that any number up to that can be used at once.
int adapt_openblas_threads(Module* module) {
  OpenBlas* blas = openblas_of(module);
  if (module->adapting.exchange(true)) return blas->given_threads;
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
  module->adapting.store(false);
  return blas->given_threads;
}

const Runtime openblas_threads = {
    "OpenBLAS, own threads", nullptr, nullptr, prepare_first, prepare_last, parent, child, nullptr,
};

}  // namespace forksafe
