// SPDX-License-Identifier: Apache-2.0
// OpenBLAS on OpenMP: Debian's libopenblas0-openmp and its like elsewhere.
//
// It inherits the OpenMP runtime's trouble with fork (see gnu_openmp.cpp), and adds its own: a
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
#include "openblas.h"
#include "runtime.h"

namespace forksafe {
namespace {

template <typename Step>
void each(Step step) {
  each_openblas(true, step);
}

// Before other libraries' handlers: a call that has passed our gate needs malloc, which an
// allocator preloaded beside us locks in its own prepare handler, and the locks that LLVM's and
// Intel's OpenMP take in theirs (kmp_runtime.cpp, __kmp_atfork_prepare).
void rest_calls() {
  each([](OpenBlas* blas) {
    Module* module = blas->module;
    blas->set_rested(*module->calls_depth() == 0 && *module->brief_depth() == 0);
    module->gates().calls.close();
    if (!blas->rested) {
      report_degraded(*module, "the fork comes from inside a call");
    } else if (!module->gates().calls.wait_empty(wait_deadline())) {
      blas->set_rested(false);
      report_degraded(*module, "calls in flight outlived FORKSAFE_WAIT_MS");
    }
  });
}

void rest_allocators() {
  each([](OpenBlas* blas) {
    Module* module = blas->module;
    // Somebody who holds a lock that another library's handler wants loses patience at the gate.
    if (blas->rested && !module->gates().calls.wait_empty(wait_deadline())) {
      blas->set_rested(false);
      report_degraded(*module, "a thread had to pass the closed gate");
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
    reset_module_in_child(module);
    if (module->omp_locks.size() != 0) {
      module->omp_locks_renewal.reset();
      module->omp_locks_lost.store(true);
    }
    // At rest nothing of it is gone: the threads are the runtime's, and its buffers belong to no
    // one thread. A shutdown would have it ask anew how many threads there may be at most
    // (blas_omp_number_max, 0.3.24 and later), and the child compute with more of them than its
    // parent.
    if (!blas->rested) {
      // Marks the pool as gone: blas_server_avail = 0, buffers given back.
      shut_down_in_child(blas);
      module->one_thread = true;
      forksafe_state.modules[module->slot].one_thread = 1;
      *blas->cpu_number = 1;
    }
  });
}

}  // namespace

const Runtime openblas_openmp = {
    "OpenBLAS, OpenMP", nullptr, nullptr, nullptr, rest_calls,
    rest_allocators,    parent,  child,   nullptr,
};

}  // namespace forksafe
