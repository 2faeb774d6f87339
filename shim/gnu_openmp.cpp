// SPDX-License-Identifier: Apache-2.0
// GNU OpenMP (libgomp, GCC 4.9 to 15), the system's and the renamed copies in Python wheels.
//
// It has no fork handling (GCC PR 60035). Its pool hangs off the forking thread's thread-local
// storage: a child's first parallel region waits for team mates that exist only in the parent.
// In the child, that thread's TLS block of each copy is put back to the object's PT_TLS image: it
// is then what every new thread starts with, and the next parallel region makes a new pool. The
// internal control variables that the thread had are read through the public functions before,
// and set again after where they differ from a new thread's.
//
// Not in a thread that is inside a parallel region (omp_get_level() > 0): its child may exec or
// exit, as POSIX says, and can't use OpenMP.
//
// A copy is an object that exports GOMP_parallel. LLVM's OpenMP may do so too, and may call itself
// libgomp.so.1; it cares for fork by itself and is left alone: it exports __kmpc_fork_call.
#include "gnu_openmp.h"

#include <cstring>

#include "fork_tree.h"
#include "gnu_openmp_callers.h"
#include "loaded_objects.h"
#include "module.h"
#include "options.h"
#include "report.h"
#include "runtime.h"

namespace forksafe {
namespace {

// The internal control variables that live in the thread: OpenMP 5.1, section 2.4.
struct ControlVariables {
  int max_threads;
  int dynamic;
  int schedule_kind;
  int schedule_chunk;
  int max_active_levels;
  int nested;
  int default_device;
  uintptr_t default_allocator;

  bool operator!=(const ControlVariables& o) const {
    return max_threads != o.max_threads || dynamic != o.dynamic ||
           schedule_kind != o.schedule_kind || schedule_chunk != o.schedule_chunk ||
           max_active_levels != o.max_active_levels || nested != o.nested ||
           default_device != o.default_device || default_allocator != o.default_allocator;
  }
};

// The public functions; null where a copy is too old to have one.
struct Functions : ThreadNumbers {
  int (*get_dynamic)();
  void (*set_dynamic)(int);
  void (*get_schedule)(int*, int*);
  void (*set_schedule)(int, int);
  int (*get_max_active_levels)();
  void (*set_max_active_levels)(int);
  int (*get_nested)();
  void (*set_nested)(int);
  int (*get_default_device)();
  void (*set_default_device)(int);
  uintptr_t (*get_default_allocator)();
  void (*set_default_allocator)(uintptr_t);
  void (*critical_end)();
  void (*atomic_end)();
};

struct Copy {
  ElfImage image;
  size_t tls_module;
  const void* tls_image;
  size_t tls_image_size;
  size_t tls_size;
  Functions omp;

  // Of the fork under way.
  void* block;  ///< the forking thread's TLS block; null when it is not to be reset
  ControlVariables before;
};

Copy copies[kMaxOpenMpCopies];
int copy_count = 0;
bool overflow = false;

using TlsGetAddr = void* (*)(const size_t* module_and_offset);
TlsGetAddr tls_get_addr = nullptr;

template <typename Function>
void find(const ElfImage& image, const char* name, Function* result) {
  *result = reinterpret_cast<Function>(image.find(name).address);
}

bool find_functions(const ElfImage& image, Functions* omp) {
  find(image, "omp_get_level", &omp->get_level);
  find(image, "omp_get_max_threads", &omp->get_max_threads);
  find(image, "omp_set_num_threads", &omp->set_num_threads);
  find(image, "omp_get_dynamic", &omp->get_dynamic);
  find(image, "omp_set_dynamic", &omp->set_dynamic);
  find(image, "omp_get_schedule", &omp->get_schedule);
  find(image, "omp_set_schedule", &omp->set_schedule);
  find(image, "omp_get_max_active_levels", &omp->get_max_active_levels);
  find(image, "omp_set_max_active_levels", &omp->set_max_active_levels);
  find(image, "omp_get_nested", &omp->get_nested);
  find(image, "omp_set_nested", &omp->set_nested);
  find(image, "omp_get_default_device", &omp->get_default_device);
  find(image, "omp_set_default_device", &omp->set_default_device);
  find(image, "omp_get_default_allocator", &omp->get_default_allocator);
  find(image, "omp_set_default_allocator", &omp->set_default_allocator);
  find(image, "GOMP_critical_end", &omp->critical_end);
  find(image, "GOMP_atomic_end", &omp->atomic_end);
  // OpenMP 3.0 has all but the device and the allocator.
  return omp->get_level != nullptr && omp->get_max_threads != nullptr &&
         omp->set_num_threads != nullptr && omp->get_dynamic != nullptr &&
         omp->set_dynamic != nullptr && omp->get_schedule != nullptr &&
         omp->set_schedule != nullptr && omp->get_max_active_levels != nullptr &&
         omp->set_max_active_levels != nullptr && omp->get_nested != nullptr &&
         omp->set_nested != nullptr;
}

ControlVariables read_variables(const Functions& omp) {
  ControlVariables v = {};
  v.max_threads = omp.get_max_threads();
  v.dynamic = omp.get_dynamic();
  omp.get_schedule(&v.schedule_kind, &v.schedule_chunk);
  v.max_active_levels = omp.get_max_active_levels();
  v.nested = omp.get_nested();
  if (omp.get_default_device != nullptr) v.default_device = omp.get_default_device();
  if (omp.get_default_allocator != nullptr) v.default_allocator = omp.get_default_allocator();
  return v;
}

// Sets what differs. The first set in a new thread allocates.
void write_variables(const Functions& omp, const ControlVariables& wanted) {
  const ControlVariables now = read_variables(omp);
  if (now.max_threads != wanted.max_threads) omp.set_num_threads(wanted.max_threads);
  if (now.dynamic != wanted.dynamic) omp.set_dynamic(wanted.dynamic);
  if (now.schedule_kind != wanted.schedule_kind || now.schedule_chunk != wanted.schedule_chunk) {
    omp.set_schedule(wanted.schedule_kind, wanted.schedule_chunk);
  }
  if (now.max_active_levels != wanted.max_active_levels) {
    omp.set_max_active_levels(wanted.max_active_levels);
  }
  // Up to GCC 10 a variable of its own; later another view of max-active-levels.
  if (omp.get_nested() != wanted.nested) omp.set_nested(wanted.nested);
  if (now.default_device != wanted.default_device && omp.set_default_device != nullptr) {
    omp.set_default_device(wanted.default_device);
  }
  if (now.default_allocator != wanted.default_allocator && omp.set_default_allocator != nullptr) {
    omp.set_default_allocator(wanted.default_allocator);
  }
}

template <typename Step>
void each(Step step) {
  for (int i = 0; i < copy_count; ++i) step(&copies[i]);
}

Copy found[kMaxOpenMpCopies];
int found_count = 0;

void forget() {
  found_count = 0;
  overflow = false;
}

void see(const ElfImage& image, size_t tls_module, const ElfW(Phdr) * tls) {
  if (image.find("GOMP_parallel").address == nullptr || tls == nullptr || tls_module == 0) return;
  if (image.find("__kmpc_fork_call").address != nullptr) return;
  Copy copy = {};
  if (!find_functions(image, &copy.omp)) return;
  if (found_count == kMaxOpenMpCopies) {
    overflow = true;
    return;
  }
  copy.image = image;
  copy.tls_module = tls_module;
  copy.tls_image = reinterpret_cast<const void*>(image.base() + tls->p_vaddr);
  copy.tls_image_size = tls->p_filesz;
  copy.tls_size = tls->p_memsz;
  found[found_count++] = copy;
}

void seen_all() {
  if (found_count != 0 && tls_get_addr == nullptr) {
    // Of ld.so: a reference would make it a NEEDED of ours.
    tls_get_addr = reinterpret_cast<TlsGetAddr>(find_function("__tls_get_addr"));
  }
  const int known = copy_count;
  copy_count = 0;
  for (int i = 0; i < found_count && tls_get_addr != nullptr; ++i) {
    bool is_new = true;
    for (int k = 0; k < known; ++k) {
      if (copies[k].image.base() == found[i].image.base()) is_new = false;
    }
    if (!pin(found[i].image)) continue;
    if (is_new && logging()) {
      Line line;
      report(line.add("adopted ").add(found[i].image.path()).add(": GNU OpenMP").text());
    }
    found[copy_count++] = found[i];
  }
  memcpy(copies, found, sizeof(Copy) * static_cast<size_t>(copy_count));
  if (overflow) report("no room for one more GNU OpenMP, left as it is");
  if (options().child_threads == Options::kAuto) {
    each([](Copy* copy) { watch_callers(copy->image, copy->omp); });
  }
}

// __tls_get_addr may allocate for a library that was dlopened: so before other handlers.
void prepare_first() {
  each([](Copy* copy) {
    const size_t start_of_block[2] = {copy->tls_module, 0};
    auto* block = static_cast<unsigned char*>(tls_get_addr(start_of_block));
    bool used = memcmp(block, copy->tls_image, copy->tls_image_size) != 0;
    for (size_t i = copy->tls_image_size; i < copy->tls_size && !used; ++i) used = block[i] != 0;
    // A thread that has no pool, or is inside a region, is left as it is.
    if (!used || copy->omp.get_level() > 0) block = nullptr;
    // Hardly ever is anything new: then the page is not written to.
    if (copy->block != block) copy->block = block;
    if (block == nullptr) return;
    const ControlVariables now = read_variables(copy->omp);
    if (now != copy->before) copy->before = now;
  });
}

void child_first() {
  each([](Copy* copy) {
    // The unnamed critical section and the fallback for atomics are two locks of libgomp's own,
    // which a thread that is gone may hold. To end one that is not held does no harm (config/linux/
    // mutex.h, gomp_mutex_unlock).
    if (copy->omp.critical_end != nullptr) copy->omp.critical_end();
    if (copy->omp.atomic_end != nullptr) copy->omp.atomic_end();
    if (copy->block == nullptr) return;
    memcpy(copy->block, copy->tls_image, copy->tls_image_size);
    memset(static_cast<unsigned char*>(copy->block) + copy->tls_image_size, 0,
           copy->tls_size - copy->tls_image_size);
  });
}

void child_last() {
  const int threads = options().child_threads;
  each([threads](Copy* copy) {
    const int fresh = copy->omp.get_max_threads();
    if (copy->block != nullptr) write_variables(copy->omp, copy->before);
    if (threads > 0 && copy->omp.get_level() == 0) copy->omp.set_num_threads(threads);
    if (thread_share() != 0) {
      start_to_adapt_callers(copy->image, fresh, copy->omp.get_max_threads());
    }
  });
}

}  // namespace

const Runtime gnu_openmp = {
    "GNU OpenMP", forget, see, seen_all, prepare_first, nullptr, nullptr, child_first, child_last,
};

}  // namespace forksafe
