// SPDX-License-Identifier: Apache-2.0
#include "doors/doors.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "elf/slots.h"

namespace forksafe {
namespace {

void enter(Gate* gate, uint8_t* depth) {
  if (gate->enter(depth) || this_thread_holds() || (this_thread_rests() && !gate->held())) return;
  while (!gate->wait_outside(newcomer_patience_ns())) open_gates_left_behind();
}

void enter_calls(Module* m) { enter(&m->gates().calls, m->calls_depth()); }
void leave_calls(Module* m) { m->gates().calls.leave(m->calls_depth()); }
void enter_brief(Module* m) { enter(&m->gates().brief, m->brief_depth()); }
void leave_brief(Module* m) { m->gates().brief.leave(m->brief_depth()); }

void note(Module* m, AddressSet* set, const void* object) {
  if (m->image.writable().contains(object) && !set->insert(object)) m->overflowed.store(true);
}

// Whether `mutex`, locked from `caller`, stands under the brief gate.
bool is_brief(Module* m, const pthread_mutex_t* mutex, const void* caller) {
  if (m->all_mutexes_are_brief) return m->image.writable().contains(mutex);
  const void* known = m->brief_mutex.load(std::memory_order_relaxed);
  if (known == nullptr && m->brief_function.contains(caller)) {
    m->brief_mutex.store(mutex);
    known = mutex;
  }
  return mutex == known;
}

// Whether what the calling thread maps, from `caller`, is a buffer of the module's memory
// allocator.
bool is_buffer(Module* m, const void* caller) {
  if ((thread_state.allocating & m->bit()) != 0) return true;
  return m->map_functions[0].contains(caller) || m->map_functions[1].contains(caller);
}

// A buffer that blas_memory_alloc has mapped is in OpenBLAS's tables, so that blas_memory_free
// knows it, when the thread has given back the allocator's lock for the second time after that:
// once for the list of what is to be unmapped, once for the table of buffers (memory.c, 0.2.20 to
// 0.3.26).
void settle_fresh_buffer(Module* m) {
  FreshBuffer& fresh = thread_state.fresh_buffer[m->slot];
  if (fresh.address == nullptr || ++fresh.unlocks < 2) return;
  if (!m->buffers.insert(fresh.address)) m->overflowed.store(true);
  fresh.address = nullptr;
}

// Linux 4.14; where the kernel does not know it, a child shares the memory as before.
void wipe_on_fork(void* address, size_t length) {
  const int error = errno;
  madvise(address, length, MADV_WIPEONFORK);
  errno = error;
}

// Inside the calls gate: no fork finds another thread here.
void renew_omp_locks(Module* m) {
  m->omp_locks_renewal.lock();
  if (m->omp_locks_lost.load()) {
    m->omp_locks.each(m->behind_door<void (*)(void*)>(Door::kOmpInitLock));
    m->omp_locks_lost.store(false, std::memory_order_release);
  }
  m->omp_locks_renewal.unlock();
}

// One set of functions for each slot, so that a door knows its module without a search.
template <int Slot>
struct Doors {
  static Module* self() { return &modules[Slot]; }

  static int mutex_lock(pthread_mutex_t* mutex) {
    Module* m = self();
    if (m->shut) return 0;
    if (const auto adapt = m->adapt.load(std::memory_order_relaxed)) adapt(m);
    note(m, &m->mutexes, mutex);
    if (is_brief(m, mutex, __builtin_return_address(0))) enter_brief(m);
    return m->behind_door<int (*)(pthread_mutex_t*)>(Door::kMutexLock)(mutex);
  }

  static int mutex_unlock(pthread_mutex_t* mutex) {
    Module* m = self();
    if (m->shut) return 0;
    const bool brief = is_brief(m, mutex, nullptr);
    const int result = m->behind_door<int (*)(pthread_mutex_t*)>(Door::kMutexUnlock)(mutex);
    if (brief) {
      settle_fresh_buffer(m);
      leave_brief(m);
    }
    return result;
  }

  static int mutex_destroy(pthread_mutex_t* mutex) {
    Module* m = self();
    return m->shut ? 0 : m->behind_door<int (*)(pthread_mutex_t*)>(Door::kMutexDestroy)(mutex);
  }

  static int cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
    Module* m = self();
    note(m, &m->conditions, condition);
    return m->behind_door<int (*)(pthread_cond_t*, pthread_mutex_t*)>(Door::kCondWait)(condition,
                                                                                       mutex);
  }

  static int cond_signal(pthread_cond_t* condition) {
    Module* m = self();
    if (m->shut) return 0;
    note(m, &m->conditions, condition);
    return m->behind_door<int (*)(pthread_cond_t*)>(Door::kCondSignal)(condition);
  }

  static int cond_destroy(pthread_cond_t* condition) {
    Module* m = self();
    return m->shut ? 0 : m->behind_door<int (*)(pthread_cond_t*)>(Door::kCondDestroy)(condition);
  }

  static int thread_create(pthread_t* thread, const pthread_attr_t* attributes,
                           void* (*start)(void*), void* argument) {
    Module* m = self();
    using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
    const int result =
        m->behind_door<Create>(Door::kThreadCreate)(thread, attributes, start, argument);
    if (result == 0) m->workers.fetch_add(1, std::memory_order_relaxed);
    return result;
  }

  static int thread_join(pthread_t thread, void** value) {
    Module* m = self();
    if (m->shut) return 0;
    const int result = m->behind_door<int (*)(pthread_t, void**)>(Door::kThreadJoin)(thread, value);
    if (result == 0) m->workers.fetch_sub(1, std::memory_order_relaxed);
    return result;
  }

  static void* map_memory(void* address, size_t length, int protection, int flags, int fd,
                          off_t offset) {
    Module* m = self();
    using Mmap = void* (*)(void*, size_t, int, int, int, off_t);
    void* result =
        m->behind_door<Mmap>(Door::kMmap)(address, length, protection, flags, fd, offset);
    if (result == MAP_FAILED || fd != -1 || !is_buffer(m, __builtin_return_address(0)))
      return result;
    if (m->notes_buffers) thread_state.fresh_buffer[m->slot] = {result, 0};
    if (m->maps_scratch) wipe_on_fork(result, length);
    return result;
  }

  static int exec_blas(long count, void* queue) {
    Module* m = self();
    enter_calls(m);
    const int result = m->behind_door<int (*)(long, void*)>(Door::kExecBlas)(count, queue);
    leave_calls(m);
    return result;
  }

  static int exec_blas_async(long position, void* queue) {
    Module* m = self();
    enter_calls(m);
    const int result = m->behind_door<int (*)(long, void*)>(Door::kExecBlasAsync)(position, queue);
    leave_calls(m);
    return result;
  }

  static void* memory_alloc(int position) {
    Module* m = self();
    if (const auto adapt = m->adapt.load(std::memory_order_relaxed)) adapt(m);
    enter_brief(m);
    thread_state.allocating |= m->bit();
    void* result = m->behind_door<void* (*)(int)>(Door::kMemoryAlloc)(position);
    thread_state.allocating &= ~m->bit();
    if (m->notes_taken && result != nullptr) {
      // Position 2 is for the team's buffers, which it keeps (blas_server_omp.c,
      // adjust_thread_buffers). Others belong to one call.
      AddressSet* owner = position == 2 ? &m->team_buffers : &m->buffers;
      if (!owner->insert(result)) m->overflowed.store(true);
    }
    leave_brief(m);
    return result;
  }

  static void memory_free(void* buffer) {
    Module* m = self();
    enter_brief(m);
    m->behind_door<void (*)(void*)>(Door::kMemoryFree)(buffer);
    leave_brief(m);
  }

  static void omp_init_lock(void* lock) {
    Module* m = self();
    m->behind_door<void (*)(void*)>(Door::kOmpInitLock)(lock);
    note(m, &m->omp_locks, lock);
  }

  // A computation is in flight from the first OpenMP lock that a thread takes to the last that it
  // gives back.
  static void omp_set_lock(void* lock) {
    Module* m = self();
    enter_calls(m);
    if (m->omp_locks_lost.load(std::memory_order_acquire)) renew_omp_locks(m);
    m->behind_door<void (*)(void*)>(Door::kOmpSetLock)(lock);
  }

  static void omp_unset_lock(void* lock) {
    Module* m = self();
    m->behind_door<void (*)(void*)>(Door::kOmpUnsetLock)(lock);
    leave_calls(m);
  }

  static int omp_in_parallel() {
    Module* m = self();
    return m->one_thread ? 1 : m->behind_door<int (*)()>(Door::kOmpInParallel)();
  }

  static int omp_get_max_threads() {
    Module* m = self();
    if (m->one_thread) return 1;
    const auto adapt = m->adapt.load(std::memory_order_relaxed);
    return adapt != nullptr ? adapt(m) : m->behind_door<int (*)()>(Door::kOmpMaxThreads)();
  }

  static void gomp_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags) {
    Module* m = self();
    enter_calls(m);
    using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
    m->behind_door<Parallel>(Door::kGompParallel)(body, data, threads, flags);
    leave_calls(m);
  }

  // In the order of `Door`.
  static constexpr auto functions() {
    struct Table {
      void* function[kDoorCount];
    };
    return Table{{
        reinterpret_cast<void*>(mutex_lock),      reinterpret_cast<void*>(mutex_unlock),
        reinterpret_cast<void*>(mutex_destroy),   reinterpret_cast<void*>(cond_wait),
        reinterpret_cast<void*>(cond_signal),     reinterpret_cast<void*>(cond_destroy),
        reinterpret_cast<void*>(thread_create),   reinterpret_cast<void*>(thread_join),
        reinterpret_cast<void*>(map_memory),      reinterpret_cast<void*>(exec_blas),
        reinterpret_cast<void*>(exec_blas_async), reinterpret_cast<void*>(memory_alloc),
        reinterpret_cast<void*>(memory_free),     reinterpret_cast<void*>(omp_init_lock),
        reinterpret_cast<void*>(omp_set_lock),    reinterpret_cast<void*>(omp_unset_lock),
        reinterpret_cast<void*>(omp_in_parallel), reinterpret_cast<void*>(omp_get_max_threads),
        reinterpret_cast<void*>(gomp_parallel),
    }};
  }
};

constexpr const char* kNames[kDoorCount] = {
    "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_mutex_destroy",
    "pthread_cond_wait",  "pthread_cond_signal",  "pthread_cond_destroy",
    "pthread_create",     "pthread_join",         "mmap",
    "exec_blas",          "exec_blas_async",      "blas_memory_alloc",
    "blas_memory_free",   "omp_init_lock",        "omp_set_lock",
    "omp_unset_lock",     "omp_in_parallel",      "omp_get_max_threads",
    "GOMP_parallel",
};

template <int... Slots>
void* door_function(int slot, size_t door, std::integer_sequence<int, Slots...>) {
  void* result = nullptr;
  ((slot == Slots ? void(result = Doors<Slots>::functions().function[door]) : void()), ...);
  return result;
}

// The door of the module that `name` names, or kCount.
Door wanted_door(const Module& module, const char* name) {
  for (size_t i = 0; i < kDoorCount; ++i) {
    const auto door = static_cast<Door>(i);
    if (module.doors.has(door) && strcmp(name, kNames[i]) == 0) return door;
  }
  return Door::kCount;
}

template <typename Accept>
bool install(Module* module, const ElfImage& object, Accept accept) {
  return redirect_slots(
      object,
      [module](const char* name) {
        const Door door = wanted_door(*module, name);
        return door == Door::kCount ? -1 : static_cast<int>(door);
      },
      [&](int door, void* behind) -> void* {
        if (!accept(door, behind)) return nullptr;
        return door_function(module->slot, static_cast<size_t>(door),
                             std::make_integer_sequence<int, kMaxModules>());
      });
}

}  // namespace

const char* door_name(Door door) { return kNames[static_cast<size_t>(door)]; }

bool install_doors(Module* module) {
  return install(module, module->image, [module](int door, void* behind) {
    module->behind[door] = behind;
    return true;
  });
}

bool install_doors_beside(Module* module, const ElfImage& object) {
  return install(module, object, [module](int door, void* behind) {
    // What another object maps is its own.
    return door != static_cast<int>(Door::kMmap) && behind == module->behind[door];
  });
}

}  // namespace forksafe
