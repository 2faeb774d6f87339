// SPDX-License-Identifier: Apache-2.0
#include "runtimes/openblas/allocator.h"

#include <sys/mman.h>

namespace forksafe {
namespace {

// Whether `mutex`, locked from `caller`, is the lock of the table of buffers.
bool is_brief(OpenBlas* blas, const pthread_mutex_t* mutex, const void* caller) {
  const void* known = blas->brief_mutex.load(std::memory_order_relaxed);
  if (known == nullptr && blas->memory_alloc.contains(caller)) {
    blas->brief_mutex.store(mutex);
    known = mutex;
  }
  return mutex == known;
}

// Whether what the calling thread maps, from `caller`, is a buffer. Other mappings of the object
// are its own.
bool is_buffer(const OpenBlas* blas, const Module* module, const void* caller) {
  if ((allocator_state.allocating & module->bit()) != 0) return true;
  return blas->memory_alloc.contains(caller) || blas->alloc_mmap.contains(caller);
}

// A buffer that blas_memory_alloc has mapped is in OpenBLAS's tables, so that blas_memory_free
// knows it, when the thread has given back the allocator's lock for the second time after that:
// once for the list of what is to be unmapped, once for the table of buffers (memory.c, 0.2.20 to
// 0.3.26).
void settle_fresh_buffer(OpenBlas* blas, Module* module) {
  FreshBuffer& fresh = allocator_state.fresh_buffer[module->slot];
  if (fresh.address == nullptr || ++fresh.unlocks < 2) return;
  if (!blas->buffers.insert(fresh.address)) module->overflowed.store(true);
  fresh.address = nullptr;
}

// Linux 4.14; where the kernel does not know it, a child shares the memory as before.
void wipe_on_fork(void* address, size_t length) {
  const KeepErrno keep;
  madvise(address, length, MADV_WIPEONFORK);
}

}  // namespace

__thread AllocatorState allocator_state __attribute__((tls_model("initial-exec")));

int MutexLock::call(const Passage<int(pthread_mutex_t*)>& through, pthread_mutex_t* mutex) {
  Module* module = through.module;
  OpenBlas* blas = openblas_of(module);
  if (blas->shut) return 0;
  adapt_threads(module);
  note(module, &module->mutexes, mutex);
  if (is_brief(blas, mutex, through.caller)) enter_brief(module);
  return through(mutex);
}

int MutexUnlock::call(const Passage<int(pthread_mutex_t*)>& through, pthread_mutex_t* mutex) {
  Module* module = through.module;
  OpenBlas* blas = openblas_of(module);
  if (blas->shut) return 0;
  const bool brief = is_brief(blas, mutex, nullptr);
  const int result = through(mutex);
  if (brief) {
    settle_fresh_buffer(blas, module);
    leave_brief(module);
  }
  return result;
}

int MutexDestroy::call(const Passage<int(pthread_mutex_t*)>& through, pthread_mutex_t* mutex) {
  return openblas_of(through.module)->shut ? 0 : through(mutex);
}

void* MapMemory::call(const Passage<void*(void*, size_t, int, int, int, long)>& through,
                      void* address, size_t length, int protection, int flags, int fd,
                      long offset) {
  const OpenBlas* blas = openblas_of(through.module);
  void* result = through(address, length, protection, flags, fd, offset);
  if (result == MAP_FAILED || fd != -1 || !is_buffer(blas, through.module, through.caller))
    return result;
  if (blas->notes_mapped()) allocator_state.fresh_buffer[through.module->slot] = {result, 0};
  if (blas->wipes_buffers()) wipe_on_fork(result, length);
  return result;
}

void* MemoryAlloc::call(const Passage<void*(int)>& through, int position) {
  Module* module = through.module;
  OpenBlas* blas = openblas_of(module);
  adapt_threads(module);
  const InBrief inside(module);
  allocator_state.allocating |= module->bit();
  void* result = through(position);
  allocator_state.allocating &= ~module->bit();
  if (blas->notes_given() && result != nullptr) {
    // Position 2 is for the team's buffers, which it keeps (blas_server_omp.c,
    // adjust_thread_buffers). Others belong to one call.
    AddressSet* owner = position == 2 ? &blas->team_buffers : &blas->buffers;
    if (!owner->insert(result)) module->overflowed.store(true);
  }
  return result;
}

}  // namespace forksafe
