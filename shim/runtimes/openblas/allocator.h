// SPDX-License-Identifier: Apache-2.0
// Doors of OpenBLAS's memory allocator (driver/others/memory.c), which both builds have: the lock
// of its table of buffers, and the buffers that it maps.
#pragma once

#include <pthread.h>

#include "runtimes/openblas/openblas.h"

namespace forksafe {

/// A buffer that a thread has mapped and OpenBLAS may not have noted yet.
struct FreshBuffer {
  void* address;
  uint8_t unlocks;  ///< how often the thread has given back the allocator's lock since
};

/// What each thread has of the allocators.
struct AllocatorState {
  FreshBuffer fresh_buffer[kMaxModules];
  uint32_t allocating;  ///< bit N: the thread is in blas_memory_alloc of module N
};
extern __thread AllocatorState allocator_state __attribute__((tls_model("initial-exec")));

struct MutexLock {
  static constexpr const char* kName = "pthread_mutex_lock";
  static int call(const Passage<int(pthread_mutex_t*)>& through, pthread_mutex_t* mutex);
};

struct MutexUnlock {
  static constexpr const char* kName = "pthread_mutex_unlock";
  static int call(const Passage<int(pthread_mutex_t*)>& through, pthread_mutex_t* mutex);
};

struct MutexDestroy {
  static constexpr const char* kName = "pthread_mutex_destroy";
  static int call(const Passage<int(pthread_mutex_t*)>& through, pthread_mutex_t* mutex);
};

struct MapMemory {
  static constexpr const char* kName = "mmap";
  // The offset is a long in every ABI. off_t is longer on some, where we are built for large files.
  static void* call(const Passage<void*(void*, size_t, int, int, int, long)>& through,
                    void* address, size_t length, int protection, int flags, int fd, long offset);
};

struct MemoryAlloc {
  static constexpr const char* kName = "blas_memory_alloc";
  static void* call(const Passage<void*(int)>& through, int position);
};

}  // namespace forksafe
