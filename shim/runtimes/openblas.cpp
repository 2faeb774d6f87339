// SPDX-License-Identifier: Apache-2.0
#include "runtimes/openblas.h"

#include <cstdlib>
#include <cstring>

#include "doors/doors.h"
#include "doors/setters.h"
#include "elf/file.h"
#include "elf/loaded_objects.h"
#include "options.h"
#include "report.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

// The doors of a build on its own threads; and exec_blas_async where exec_queue_lock has no name:
// see openblas_threads.cpp.
constexpr DoorSet kThreadDoors = {
    Door::kMutexLock,    Door::kMutexUnlock, Door::kMutexDestroy,
    Door::kCondWait,     Door::kCondSignal,  Door::kCondDestroy,
    Door::kThreadCreate, Door::kThreadJoin,  Door::kMmap,
};

constexpr DoorSet kOpenMpDoors = {
    Door::kMutexLock,    Door::kMutexUnlock,   Door::kMutexDestroy,  Door::kExecBlas,
    Door::kMemoryAlloc,  Door::kMemoryFree,    Door::kOmpInitLock,   Door::kOmpSetLock,
    Door::kOmpUnsetLock, Door::kOmpInParallel, Door::kOmpMaxThreads, Door::kGompParallel,
    Door::kMmap,
};

// An object is an OpenBLAS if it exports *openblas_get_config*: the name has a prefix (scipy_) and
// a suffix (64_) in some builds.
void* find_get_config(const ElfImage& image) {
  void* result = image.find("openblas_get_config").address;
  if (result != nullptr) return result;
  image.any_symbol([&](const char* name, const Symbol& symbol) {
    if (strstr(name, "openblas_get_config") == nullptr) return false;
    result = symbol.address;
    return true;
  });
  return result;
}

// "OpenBLAS 0.3.21 NO_AFFINITY ... MAX_THREADS=64". Every version since 0.3.4 has it so.
void read_config(const char* config, OpenBlas* blas) {
  const char* number = strstr(config, "OpenBLAS ");
  if (number != nullptr) {
    char* end = nullptr;
    number += strlen("OpenBLAS ");
    const long major = strtol(number, &end, 10);
    const long minor = *end == '.' ? strtol(end + 1, &end, 10) : 0;
    const long patch = *end == '.' ? strtol(end + 1, &end, 10) : 0;
    blas->version = static_cast<int>(major * 10000 + minor * 100 + patch);
  }
  const char* threads = strstr(config, "MAX_THREADS=");
  if (threads != nullptr) {
    blas->max_threads = static_cast<int>(strtol(threads + strlen("MAX_THREADS="), nullptr, 10));
  }
  // 0.3.1 to 0.3.3 were built so unless told otherwise.
  blas->buffers_have_headers = blas->version < 304 || strstr(config, "USE_TLS") != nullptr;
}

// What an OpenBLAS that is loaded now takes from the environment (driver/others/openblas_env.c);
// an OpenMP build's runtime looks at the last one.
long threads_in_environment() {
  for (const char* name : {"OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"}) {
    const char* text = getenv(name);
    const long threads = text != nullptr ? strtol(text, nullptr, 10) : 0;
    if (threads > 0) return threads;
  }
  return 0;
}

long threads_at_start = 0;

// What is read of a copy before it is adopted.
struct Findings {
  const ElfImage* image;
  OpenBlas blas;
  const void* alloc_lock;
  Symbol memory_alloc;
  Symbol alloc_mmap;       ///< the static function that maps buffers for blas_memory_alloc
  bool shutdown_is_named;  ///< a symbol table has blas_thread_shutdown_ where the handler is
};

void take_symbol(Findings* found, const char* name, void* address, size_t size) {
  OpenBlas* b = &found->blas;
  if (address == reinterpret_cast<void*>(b->shutdown)) {
    // blas_thread_shutdown_64_ in some builds with 64-bit integers.
    const char* const shutdown = "blas_thread_shutdown";
    if (strncmp(name, shutdown, strlen(shutdown)) == 0) found->shutdown_is_named = true;
  } else if (strcmp(name, "blas_memory_alloc") == 0) {
    found->memory_alloc = {address, size};
  } else if (strcmp(name, "blas_memory_free") == 0) {
    b->memory_free = reinterpret_cast<void (*)(void*)>(address);
  } else if (strcmp(name, "blas_cpu_number") == 0) {
    b->cpu_number = static_cast<int*>(address);
  } else if (strcmp(name, "blas_num_threads") == 0) {
    b->num_threads = static_cast<int*>(address);
  } else if (strcmp(name, "alloc_mmap") == 0) {
    found->alloc_mmap = {address, size};
  } else if (strcmp(name, "alloc_lock") == 0) {
    found->alloc_lock = address;
  } else if (strcmp(name, "exec_queue_lock") == 0) {
    // A spin lock of one word; a mutex in 0.3.34, which the doors see like any other.
    b->exec_queue_is_named = true;
    if (size == sizeof(long)) b->exec_queue_lock = static_cast<unsigned long*>(address);
  } else if (strncmp(name, "CPU_AVAILABLE", strlen("CPU_AVAILABLE")) == 0 && size == sizeof(long) &&
             b->cpu_available_count < OpenBlas::kMaxCounters) {
    b->cpu_available[b->cpu_available_count++] = static_cast<long*>(address);
  }
}

void read_symbols(Findings* found) {
  // .dynsym is in memory. What has hidden visibility or is static stands in the file, if at all.
  for (const char* name :
       {"blas_memory_alloc", "blas_memory_free", "blas_cpu_number", "blas_num_threads",
        "blas_thread_shutdown_", "blas_thread_shutdown_64_"}) {
    const Symbol symbol = found->image->find(name);
    if (symbol.address != nullptr) take_symbol(found, name, symbol.address, symbol.size);
  }
  if (!options().opens_files) return;
  const Findings from_memory = *found;
  found->shutdown_is_named = false;
  const bool walked = each_file_symbol(
      found->image->path(),
      [](const char* name, uintptr_t value, size_t size, void* context) {
        auto* f = static_cast<Findings*>(context);
        void* address = reinterpret_cast<void*>(f->image->base() + value);
        if (f->image->span().contains(address)) take_symbol(f, name, address, size);
      },
      found);
  // Another file may stand at that path by now.
  if (!walked || !found->shutdown_is_named) *found = from_memory;
}

void set_by_program(int index) {
  OpenBlas* blas = &openblas_copies[index];
  if (blas->module->adapt == nullptr) return;
  blas->module->adapt = nullptr;
  blas->program_chose = true;
}

Range range_of(const Symbol& function) {
  const auto begin = reinterpret_cast<uintptr_t>(function.address);
  return {begin, begin + function.size};
}

void prepare_module(Module* module, const void* context) {
  const auto* found = static_cast<const Findings*>(context);
  module->brief_mutex.store(found->alloc_lock);
  module->brief_function = range_of(found->memory_alloc);
  module->all_mutexes_are_brief = false;
  module->map_functions[0] = range_of(found->memory_alloc);
  module->map_functions[1] = range_of(found->alloc_mmap);
  const OpenBlas& blas = found->blas;
  module->rests_early = blas.openmp || !blas.exec_queue_is_named;
  module->notes_buffers = !blas.openmp && blas.version != 0 && blas.version <= 326;
  module->notes_taken = blas.openmp && !blas.buffers_have_headers;
  // Its buffers hold packed parts of matrices during a call, and nothing between calls. Empty in a
  // child, they cost a fork no page tables, and the parent's next call no copies of pages.
  module->maps_scratch = !blas.buffers_have_headers;
}

// The image of the object that holds `prepare`, if it may be an OpenBLAS that registers its
// shutdown. In a process that came by fork the dynamic linker may be asked only by a thread that is
// loading something: OpenBLAS registers in its constructor, when its _init has just come by.
bool find_registrant(void (*prepare)(), ElfImage* image) {
  return may_ask_linker() && find_object(reinterpret_cast<const void*>(prepare), image) &&
         !is_adopted(*image);
}

}  // namespace

OpenBlas openblas_copies[kMaxModules];
std::atomic<int> openblas_count{0};

bool adopt_openblas(void (*prepare)()) {
  ElfImage image;
  if (!find_registrant(prepare, &image)) return false;
  void* get_config = find_get_config(image);
  if (get_config == nullptr) return false;

  static Findings found;  // too large for a small stack; the dynamic linker's lock serialises us
  found = {};
  found.image = &image;
  found.blas.shutdown = prepare;
  found.blas.openmp = image.imports("GOMP_parallel") || image.imports("__kmpc_fork_call");
  read_config(reinterpret_cast<const char* (*)()>(get_config)(), &found.blas);
  read_symbols(&found);
  // A library may have OpenBLAS linked in, and a prepare handler of its own.
  if (!found.shutdown_is_named) return false;

  DoorSet doors = found.blas.openmp ? kOpenMpDoors : kThreadDoors;
  if (!found.blas.openmp) {
    if (found.alloc_mmap.address == nullptr) doors.add(Door::kMemoryAlloc);
    if (!found.blas.exec_queue_is_named) doors.add(Door::kExecBlasAsync);
    if (found.blas.cpu_available_count != 0) {
      // The constructor registers the handler before any call is made: this is their first value.
      found.blas.cpu_available_initial = *found.blas.cpu_available[0];
    }
  }
  if (found.blas.cpu_number == nullptr || !pin(image)) {
    Line line;
    line.add("left as it is, ");
    line.add(found.blas.cpu_number == nullptr ? "no symbol names its internals: "
                                              : "it can't be kept loaded: ");
    line.add(image.path());
    report(line.text());
    return false;
  }
  Line kind;
  kind.add("OpenBLAS 0.")
      .add(found.blas.version / 100 % 100)
      .add(".")
      .add(found.blas.version % 100);
  kind.add(found.blas.openmp ? ", OpenMP" : ", own threads");
  Module* module = adopt(image, kind.text(), doors, prepare_module, &found);
  if (module == nullptr) return false;
  found.blas.module = module;
  const int index = openblas_count.load(std::memory_order_relaxed);
  openblas_copies[index] = found.blas;
  openblas_count.store(index + 1, std::memory_order_release);
  // Objects that need it were loaded and bound before its constructor runs.
  each_loaded_object([](const ElfImage& object, size_t, const ElfW(Phdr)*) {
    see_beside_openblas(object);
    return true;
  });
  if (options().child_threads == Options::kAuto) {
    image.any_symbol([&](const char* name, const Symbol& symbol) {
      if (strstr(name, "openblas_set_num_threads") != nullptr) {
        watch_setter(image, symbol, set_by_program, index);
      }
      return false;
    });
  }
  // In a child that has set a number before it loads the copy, that is its choice.
  openblas_copies[index].program_chose = threads_in_environment() != threads_at_start;
  start_to_adapt(&openblas_copies[index]);
  return true;
}

void remember_environment() { threads_at_start = threads_in_environment(); }

void start_to_adapt(OpenBlas* blas) {
  if (thread_share() == 0 || blas->program_chose) return;
  blas->module->adapt = blas->openmp ? adapt_openblas_openmp : adapt_openblas_threads;
  blas->module->adapt.load()(blas->module);
}

void see_beside_openblas(const ElfImage& image) {
  for (const bool openmp : {false, true}) {
    each_openblas(openmp, [&](OpenBlas* blas) {
      if (image.needs(blas->module->image) && image.imports("blas_memory_alloc")) {
        install_doors_beside(blas->module, image);
      }
    });
  }
}

void tear(OpenBlas* blas, const char* why) {
  blas->set_torn(true);
  report_degraded(*blas->module, why);
}

void rest_allocator(OpenBlas* blas) {
  Module* module = blas->module;
  if (!rest_late(module, &module->gates().brief, module->brief_depth())) {
    tear(blas, "its memory allocator did not come to rest");
  }
}

void shut_down_in_child(OpenBlas* blas) {
  Module* module = blas->module;
  module->shut = true;
  blas->shutdown();
  give_buffers_back(blas);
  module->shut = false;
}

void give_buffers_back(OpenBlas* blas) {
  if (blas->memory_free == nullptr) return;
  blas->module->buffers.each([blas](void* buffer) {
    if (!blas->module->team_buffers.has(buffer)) blas->memory_free(buffer);
  });
}

void report_degraded(const Module& module, const char* why) {
  ++forksafe_state.modules[module.slot].degraded_forks;
  if (!logging()) return;
  Line line;
  line.add("a child computes with one thread in ").add(module.image.path()).add(": ").add(why);
  report(line.text());
}

}  // namespace forksafe
