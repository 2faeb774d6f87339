// SPDX-License-Identifier: Apache-2.0
// OpenBLAS on OpenMP: Debian's libopenblas0-openmp and its like elsewhere.
//
// It inherits the OpenMP runtime's trouble with fork (see gnu_openmp/), and adds its own: a
// call in flight leaves blas_buffer_inuse set in the child, which then spins for ever
// (blas_server_omp.c, exec_blas), from 0.3.27 on also a static omp_lock_t and the counter under it
// (level3_thread.c), and the buffer table's spin locks (memory.c).
//
// exec_blas spins for its in-use flag, so calls are serial already, and the parts to be brought to
// rest are these: exec_blas and the level-3 drivers between their OpenMP locks (the calls gate),
// blas_memory_alloc and blas_memory_free (the brief gate; threads of a parallel region may come
// there, so it is closed when the calls are at rest). A call that outlives FORKSAFE_WAIT_MS goes
// on in the parent; the child is told at the doors that it is inside a parallel region, so that
// OpenBLAS computes with one thread there and takes none of the stale locks (common_thread.h,
// num_cpu_avail), whatever the program sets later.
#include "options.h"
#include "runtimes/openblas.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

template <typename Step>
void each(Step step) {
  each_openblas(true, step);
}

void see(const ElfImage& image, size_t, const ElfW(Phdr) *) { see_beside_openblas(image); }

int runtime_threads(const Module* module) {
  const auto get = module->behind_door<int (*)()>(Door::kOmpMaxThreads);
  return get != nullptr ? get() : 0;
}

constexpr int kUnknown = -1;

// What the forking thread has. Each is hardly ever another than before.
void note_threads(OpenBlas* blas) {
  const int threads = runtime_threads(blas->module);
  if (blas->most_threads != threads) blas->most_threads = threads;
  const int now = *blas->cpu_number;
  if (blas->given_threads != now) blas->given_threads = now;
  if (blas->room < now) blas->room = now;
}

// A call that has passed our gate needs malloc, and may need the locks that LLVM's and Intel's
// OpenMP take in their prepare handlers.
void prepare_first() {
  each([](OpenBlas* blas) {
    rest_early(blas->module, &blas->module->gates().calls, blas->module->calls_depth());
  });
}

void prepare_last() {
  each([](OpenBlas* blas) {
    Module* module = blas->module;
    if (options().child_threads == Options::kAuto) note_threads(blas);
    blas->set_torn(false);
    // Threads of a computation come to the allocator: calls first.
    if (!rest_late(module, &module->gates().calls, module->calls_depth())) {
      tear(blas, "calls in flight outlived FORKSAFE_WAIT_MS");
    } else if (*module->calls_depth() != 0 || *module->brief_depth() != 0) {
      tear(blas, "the fork comes from inside a call");
    }
    rest_allocator(blas);
  });
}

void parent() {
  each([](OpenBlas* blas) {
    blas->module->gates().brief.open();
    blas->module->gates().calls.open();
  });
}

void child() {
  each([](OpenBlas* blas) {
    Module* module = blas->module;
    if (!reset_module_in_child(module) && !blas->torn) {
      tear(blas, "a call went on while the fork was held up");
    }
    if (module->omp_locks.size() != 0) {
      module->omp_locks_renewal.reset();
      module->omp_locks_lost.store(true);
    }
    // At rest nothing of it is gone: the threads are the runtime's, and its buffers belong to no
    // one thread. A shutdown would have it ask anew how many threads there may be at most
    // (blas_omp_number_max, 0.3.24 and later), and the child compute with more of them than its
    // parent.
    if (blas->torn || module->one_thread) {
      // Marks the pool as gone: blas_server_avail = 0, buffers given back.
      shut_down_in_child(blas);
      module->one_thread = true;
      module->adapt = nullptr;
      forksafe_state.modules[module->slot].one_thread = 1;
      *blas->cpu_number = 1;
      return;
    }
    give_buffers_back(blas);
    if (options().child_threads == Options::kAuto) {
      start_to_adapt(blas);
    } else if (options().child_threads > 0 && options().child_threads < *blas->cpu_number) {
      // The runtime gets that number too (gnu_openmp/). In 0.3.34 it is not the one that counts
      // once the program has called openblas_set_num_threads: a team smaller than that number then
      // waits for ever for parts that nobody computes, forked or not.
      *blas->cpu_number = options().child_threads;
    }
  });
}

}  // namespace

// OpenBLAS asks its runtime before each computation how many threads there are, and where that is
// another number than its own, sets its own to it (num_cpu_avail, common_thread.h). Both get the
// same answer here, so the runtime's own number, which is the program's too, stays. Some versions
// do not ask, or not while their number is 1 (0.3.10 and before, 0.3.22 and 0.3.23): hence the door
// of the buffers, which a computation passes first.
int adapt_openblas_openmp(Module* module) {
  OpenBlas* blas = openblas_of(module);
  const int threads = runtime_threads(module);
  const int now = __atomic_load_n(blas->cpu_number, __ATOMIC_RELAXED);
  if (now == 0 || module->adapting.exchange(true)) return threads;  // 0: the copy is being loaded
  if (blas->most_threads == 0) note_threads(blas);                  // loaded in this child
  int wanted = threads;
  if (blas->given_threads != kUnknown && now != blas->given_threads) {
    blas->program_chose = true;  // by openblas_set_num_threads
    module->adapt = nullptr;
  } else {
    // Another number than at the fork was set by omp_set_num_threads, in this thread.
    const int share = thread_share();
    if (threads == blas->most_threads && share < threads) wanted = share;
    // More than it has buffers for it is to learn from its runtime.
    blas->given_threads = wanted <= blas->room ? wanted : kUnknown;
    if (wanted <= blas->room && wanted != now) {
      __atomic_store_n(blas->cpu_number, wanted, __ATOMIC_RELAXED);
    }
  }
  module->adapting.store(false);
  return wanted;
}

const Runtime openblas_openmp = {
    "OpenBLAS, OpenMP", see, nullptr, prepare_first, prepare_last, parent, child, nullptr,
};

}  // namespace forksafe
