// SPDX-License-Identifier: Apache-2.0
// What a copy of OpenBLAS says of itself: its configuration, and the few of its symbols that we
// know.
#pragma once

#include "elf/image.h"

namespace forksafe {

struct Internals {
  bool openmp = false;
  /// 321 for 0.3.21; 0 where the configuration string can't be read.
  int version = 0;
  /// How many threads the build was made for.
  int max_threads = 0;
  /// The allocator keeps a record of its own at the start of what it maps (memory.c, USE_TLS).
  bool buffers_have_headers = false;
  /// blas_thread_shutdown_, which the build wanted to run in the parent at each fork.
  void (*shutdown)() = nullptr;

  // Null, or empty, where no symbol table names them.
  Range memory_alloc;                           ///< the code of blas_memory_alloc
  Range alloc_mmap;                             ///< of the static function that maps for it
  void (*memory_free)(void* buffer) = nullptr;  ///< blas_memory_free
  const void* alloc_lock = nullptr;             ///< the mutex of the table of buffers
  int* cpu_number = nullptr;                    ///< blas_cpu_number: threads that a call may use
  int* num_threads = nullptr;                   ///< blas_num_threads: threads of the pool
  bool exec_queue_is_named = false;             ///< .symtab has exec_queue_lock
  unsigned long* exec_queue_lock = nullptr;     ///< the same, where it is a spin lock of one word
  static constexpr int kMaxCounters = 256;
  long* cpu_available[kMaxCounters] = {};  ///< CPU_AVAILABLE of each level-3 driver
  int cpu_available_count = 0;
};

/// An object is an OpenBLAS if it exports *openblas_get_config*.
bool is_openblas(const ElfImage& image);

/// Fills in `result`. False where `image` is no OpenBLAS, or where `prepare` is not its
/// blas_thread_shutdown_.
bool read_internals(const ElfImage& image, void (*prepare)(), Internals* result);

}  // namespace forksafe
