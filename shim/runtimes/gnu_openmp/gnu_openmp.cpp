// SPDX-License-Identifier: Apache-2.0
// GNU OpenMP (libgomp, GCC 4.9 to 16), the system's and the renamed copies in Python wheels.
//
// It has no fork handling (GCC PR 60035). The thread-local storage of the forking thread leads to
// its pool of threads. A child's first parallel region waits for threads of that pool, which exist
// only in the parent.
//
// In the child, the thread's TLS block of each copy is set back to the object's PT_TLS image. Every
// new thread starts with such a block, so the next parallel region makes a new pool. The thread's
// internal control variables are read through the public functions before that. Those that differ
// from a new thread's are set again after it. All of that is done before other libraries' child
// handlers run, so what such a handler sets holds.
//
// A thread that is inside a parallel region or another construct is left as it is: its child may
// exec or exit, as POSIX says, and can't use OpenMP.
//
// A copy is an object that exports GOMP_parallel. It may be libgomp alone, or a program or a
// library with libgomp.a linked in, which has thread-local variables of its own. Then libgomp's
// part of the TLS block must be named: gomp_tls_data is hidden, so only .symtab names it. An object
// that does not export GOMP_parallel is not looked at: to read the .symtab of each object would
// cost all programs.
//
// LLVM's OpenMP may export that name too, and may call itself libgomp.so.1. It exports
// __kmpc_fork_call as well, and is left alone, because it handles fork itself.
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "doors/module.h"
#include "elf/file.h"
#include "elf/loaded_objects.h"
#include "elf/slots.h"
#include "futex.h"
#include "options.h"
#include "pages.h"
#include "report.h"
#include "runtimes/copies.h"
#include "runtimes/gnu_openmp/callers.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

// The internal control variables that each thread has: OpenMP 5.1, section 2.4.
struct ControlVariables {
  int max_threads;
  int dynamic;
  int schedule_kind;
  int schedule_chunk;
  int max_active_levels;
  int nested;
  int default_device;
  uintptr_t default_allocator;

  static constexpr int kDynamic = 2;  // omp_sched_dynamic
};

// The public functions. A function is null if the copy is too old to have it. Where libgomp.a is
// linked in, those that set a variable are null if nothing in the program calls them.
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
  int (*get_num_teams)();
  int (*in_explicit_task)();
  void (*critical_end)();
  void (*atomic_end)();
};

// The most thread-local storage that a copy may have.
constexpr size_t kLargestTls = 256;

struct Copy {
  ElfImage image;
  intptr_t tls_offset;  ///< of libgomp's part of a thread's TLS block, from our own thread_state
  const void* tls_image;
  size_t tls_image_size;
  size_t tls_size;
  bool is_alone;  ///< a library that is libgomp alone, not one with libgomp.a linked in
  /// In a child: the thread's block before its reset. A leak checker looks for pointers only where
  /// a pointer can be aligned.
  alignas(void*) unsigned char block_before[kLargestTls];
  Functions omp;
};

Copies<Copy, kMaxOpenMpCopies> copies;

template <typename Visit>
void each_function(Functions* omp, Visit visit) {
  const auto one = [&](const char* name, auto* function) {
    visit(name, reinterpret_cast<void**>(function));
  };
  one("omp_get_level", &omp->get_level);
  one("omp_get_max_threads", &omp->get_max_threads);
  one("omp_set_num_threads", &omp->set_num_threads);
  one("omp_get_dynamic", &omp->get_dynamic);
  one("omp_set_dynamic", &omp->set_dynamic);
  one("omp_get_schedule", &omp->get_schedule);
  one("omp_set_schedule", &omp->set_schedule);
  one("omp_get_max_active_levels", &omp->get_max_active_levels);
  one("omp_set_max_active_levels", &omp->set_max_active_levels);
  one("omp_get_nested", &omp->get_nested);
  one("omp_set_nested", &omp->set_nested);
  one("omp_get_default_device", &omp->get_default_device);
  one("omp_set_default_device", &omp->set_default_device);
  one("omp_get_default_allocator", &omp->get_default_allocator);
  one("omp_set_default_allocator", &omp->set_default_allocator);
  one("omp_get_num_teams", &omp->get_num_teams);
  one("omp_in_explicit_task", &omp->in_explicit_task);
  one("GOMP_critical_end", &omp->critical_end);
  one("GOMP_atomic_end", &omp->atomic_end);
}

// OpenMP 3.0 has all but the device and the allocator.
bool has_all(const Functions& omp) {
  return omp.get_level != nullptr && omp.get_max_threads != nullptr &&
         omp.set_num_threads != nullptr && omp.get_dynamic != nullptr &&
         omp.set_dynamic != nullptr && omp.get_schedule != nullptr && omp.set_schedule != nullptr &&
         omp.get_max_active_levels != nullptr && omp.set_max_active_levels != nullptr &&
         omp.get_nested != nullptr && omp.set_nested != nullptr;
}

// Whether each variable that the program can set can be read.
bool can_be_read(const Functions& omp) {
  const auto holds = [](auto* get, auto* set) { return set == nullptr || get != nullptr; };
  return omp.get_level != nullptr && holds(omp.get_max_threads, omp.set_num_threads) &&
         holds(omp.get_dynamic, omp.set_dynamic) && holds(omp.get_schedule, omp.set_schedule) &&
         holds(omp.get_max_active_levels, omp.set_max_active_levels) &&
         holds(omp.get_nested, omp.set_nested) &&
         holds(omp.get_default_device, omp.set_default_device) &&
         holds(omp.get_default_allocator, omp.set_default_allocator);
}

template <typename Value>
void read_variable(Value (*get)(), Value* value) {
  if (get != nullptr) *value = get();
}

ControlVariables read_variables(const Functions& omp) {
  ControlVariables v = {};
  read_variable(omp.get_max_threads, &v.max_threads);
  read_variable(omp.get_dynamic, &v.dynamic);
  if (omp.get_schedule != nullptr) omp.get_schedule(&v.schedule_kind, &v.schedule_chunk);
  read_variable(omp.get_max_active_levels, &v.max_active_levels);
  read_variable(omp.get_nested, &v.nested);
  read_variable(omp.get_default_device, &v.default_device);
  read_variable(omp.get_default_allocator, &v.default_allocator);
  return v;
}

template <typename Value>
void write_variable(Value (*get)(), void (*set)(Value), Value wanted) {
  if (set != nullptr && get() != wanted) set(wanted);
}

void write_schedule(const Functions& omp, const ControlVariables& wanted) {
  int kind = 0;
  int chunk = 0;
  omp.get_schedule(&kind, &chunk);
  if (kind == wanted.schedule_kind && chunk == wanted.schedule_chunk) return;
  // With the kind auto, omp_set_schedule leaves the chunk as it is (icv.c, GCC 4.9 to 16).
  if (wanted.schedule_chunk > 0)
    omp.set_schedule(ControlVariables::kDynamic, wanted.schedule_chunk);
  omp.set_schedule(wanted.schedule_kind, wanted.schedule_chunk);
}

// Sets the variables that are not as wanted.
void write_variables(const Functions& omp, const ControlVariables& wanted) {
  write_variable(omp.get_max_threads, omp.set_num_threads, wanted.max_threads);
  write_variable(omp.get_dynamic, omp.set_dynamic, wanted.dynamic);
  if (omp.set_schedule != nullptr) write_schedule(omp, wanted);
  write_variable(omp.get_max_active_levels, omp.set_max_active_levels, wanted.max_active_levels);
  // Up to GCC 10 `nested` is a variable of its own. Later it is another view of max-active-levels.
  write_variable(omp.get_nested, omp.set_nested, wanted.nested);
  write_variable(omp.get_default_device, omp.set_default_device, wanted.default_device);
  write_variable(omp.get_default_allocator, omp.set_default_allocator, wanted.default_allocator);
}

// ---- the record of a child's variables ----

// The first set of a variable in a new thread allocates a record, which the thread frees when it
// ends (gomp_new_icv and gomp_free_thread, team.c, GCC 4.9 to 16). In a child malloc may be locked:
// until the allocator's own child handler has run, or for ever, if it has none and another thread
// of the parent was inside. A child that calls exec next would not have called malloc. So the
// record of a child's first thread is one of these, by way of libgomp's own GOT slots for malloc
// and free. One for each copy is enough: a child's child puts its TLS block back, and takes the
// record anew.
//
// libgomp also sets its key for that thread, so that the record is freed. That may allocate too, in
// glibc (pthread_setspecific, for keys from 32 on), and is left out. When the thread makes a pool,
// libgomp sets the key again (gomp_get_thread_pool, pool.h).
struct alignas(64) Record {
  unsigned char bytes[2048];  // some 250 are needed
};
Record records[kMaxOpenMpCopies];

// Only in a child, while it reads and sets variables in its only thread.
bool handles_variables = false;
Record* record_to_give = nullptr;

// Behind the slots; the same for all copies.
struct {
  void* (*malloc)(size_t);
  void (*free)(void*);
  int (*setspecific)(pthread_key_t, const void*);
} next = {};

void* give_memory(size_t size) {
  Record* const record = record_to_give;
  if (record == nullptr || size > sizeof record->bytes) return next.malloc(size);
  record_to_give = nullptr;
  return record->bytes;
}

void take_memory_back(void* memory) {
  const auto* record = static_cast<const Record*>(memory);
  if (record < records || record >= records + kMaxOpenMpCopies) next.free(memory);
}

int set_key(pthread_key_t key, const void* value) {
  return handles_variables ? 0 : next.setspecific(key, value);
}

// Not for a copy whose malloc is another one than that of the first copy (RTLD_DEEPBIND), or whose
// slots can't be written: its child calls malloc.
void lead_to_records(const ElfImage& image) {
  constexpr const char* kNames[] = {"malloc", "free", "pthread_setspecific"};
  void* const ours[] = {reinterpret_cast<void*>(give_memory),
                        reinterpret_cast<void*>(take_memory_back),
                        reinterpret_cast<void*>(set_key)};
  const auto number_of = [&](const char* name) {
    for (int i = 0; i < 3; ++i) {
      if (strcmp(name, kNames[i]) == 0) return i;
    }
    return -1;
  };
  void* behind[3] = {};
  image.each_slot([&](const char* name, void** slot) {
    const int number = number_of(name);
    if (number >= 0) behind[number] = function_behind(image, name, slot);
  });
  for (const void* function : behind) {
    if (function == nullptr) return;
  }
  const decltype(next) found = {reinterpret_cast<void* (*)(size_t)>(behind[0]),
                                reinterpret_cast<void (*)(void*)>(behind[1]),
                                reinterpret_cast<int (*)(pthread_key_t, const void*)>(behind[2])};
  if (next.malloc == nullptr) next = found;
  if (memcmp(&next, &found, sizeof next) != 0) return;
  redirect_slots(image, number_of, [&](int number, void*) { return ours[number]; });
}

// ---- the default device ----

// Under OMP_TARGET_OFFLOAD=mandatory the default device is INT_MIN until libgomp has looked for
// devices. omp_get_default_device then makes it look (icv-device.c, GCC 13 to 16): it allocates,
// and calls dlopen for each plugin (target.c, gomp_target_init). A child that only wants to exec
// may hang there. libgomp looks by way of pthread_once. So that call does nothing while the library
// reads the variables: INT_MIN is read and kept, and libgomp looks when the program asks. No other
// function that the library calls in a child looks for devices.
int (*next_once)(pthread_once_t*, void (*)()) = nullptr;  // behind the slots, as `next`

int call_once(pthread_once_t* control, void (*function)()) {
  return handles_variables ? 0 : next_once(control, function);
}

// False if a slot can't lead to call_once. The copy's default device is then not kept in children.
bool lead_to_call_once(const ElfImage& image) {
  bool leads = true;
  const bool written = redirect_slots(
      image, [](const char* name) { return strcmp(name, "pthread_once") == 0 ? 0 : -1; },
      [&](int, void* behind) {
        const auto function = reinterpret_cast<decltype(next_once)>(behind);
        if (next_once == nullptr) next_once = function;
        leads = leads && function == next_once;
        return leads ? reinterpret_cast<void*>(call_once) : nullptr;
      });
  return written && leads;
}

// Whether all of the object's thread-local storage is libgomp's. That holds for a library that
// exports only names of libgomp's (libgomp.map, GCC 4.9 to 16), and has as little thread-local
// storage as libgomp, all of it zero (0x78 to 0x88 bytes in every copy seen). A program or library
// with libgomp.a linked in may have thread_local variables of its own there.
bool is_libgomp_alone(const ElfImage& image, const ElfW(Phdr) & tls) {
  if (*image.path() == '\0' || tls.p_memsz > kLargestTls) return false;
  const auto* initial = reinterpret_cast<const unsigned char*>(image.base() + tls.p_vaddr);
  for (size_t i = 0; i < tls.p_filesz; ++i) {
    if (initial[i] != 0) return false;
  }
  return !image.any_symbol([](const char* name, const Symbol&) {
    for (const char* prefix :
         {"GOMP_", "GOACC_", "OACC_", "OMP_", "omp_", "acc_", "gomp_", "goacc_", "ompd_", "OMPD_",
          "_init", "_fini", "_edata", "_end", "__bss_start"}) {
      if (strncmp(name, prefix, strlen(prefix)) == 0) return false;
    }
    return true;
  });
}

// Finds libgomp's part of the thread-local storage of an object with libgomp.a linked in, and the
// functions that the object does not export.
bool find_linked_in(const ElfImage& image, const ElfW(Phdr) & tls, size_t* offset, Copy* copy) {
  if (!options().opens_files) return false;
  const ThreadLocal part = find_file_thread_local(image.path(), "gomp_tls_data");
  if (part.size == 0 || part.size > kLargestTls || part.offset > tls.p_memsz ||
      part.size > tls.p_memsz - part.offset) {
    return false;
  }
  struct Reading {
    const ElfImage& image;
    Functions* omp;
    bool is_the_file;
  } reading = {image, &copy->omp, false};
  each_file_symbol(
      image.path(),
      [](const char* name, uintptr_t value, size_t, void* context) {
        auto* r = static_cast<Reading*>(context);
        void* const address = reinterpret_cast<void*>(r->image.base() + value);
        // The path may have another file by now.
        if (strcmp(name, "GOMP_parallel") == 0) {
          r->is_the_file = address == r->image.find("GOMP_parallel").address;
        }
        if (!r->image.executable(address)) return;
        each_function(r->omp, [&](const char* wanted, void** function) {
          if (*function == nullptr && strcmp(name, wanted) == 0) *function = address;
        });
      },
      &reading);
  *offset = part.offset;
  copy->tls_size = part.size;
  return reading.is_the_file && can_be_read(copy->omp);
}

// The objects of the look under way, which are pinned when the linker's lock is free again.
Copy found[kMaxOpenMpCopies] = {};
size_t tls_modules[kMaxOpenMpCopies] = {};
size_t tls_parts[kMaxOpenMpCopies] = {};
int found_count = 0;
bool overflow = false;

const char* name_of(const ElfImage& image) {
  return *image.path() == '\0' ? "the program" : image.path();
}

void leave_alone(const ElfImage& image, const char* why) {
  if (!logging()) return;
  Line line;
  report(line.add("left as it is, ").add(why).add(": ").add(name_of(image)).text());
}

void see(const ElfImage& image) {
  copies.each([&](Copy* copy) { watch_caller(copy->image, image); });
  const ElfW(Phdr)* const tls = image.tls();
  if (image.find("GOMP_parallel").address == nullptr || tls == nullptr) return;
  if (image.find("__kmpc_fork_call").address != nullptr) return;
  if (has_image(&copies[0], copies.size(), image)) return;
  Copy copy = {};
  each_function(&copy.omp,
                [&](const char* name, void** function) { *function = image.find(name).address; });
  copy.is_alone = is_libgomp_alone(image, *tls);
  size_t offset = 0;
  copy.tls_size = tls->p_memsz;
  if (copy.is_alone ? !has_all(copy.omp) : !find_linked_in(image, *tls, &offset, &copy)) {
    if (!copy.is_alone) leave_alone(image, "GNU OpenMP is linked into it");
    return;
  }
  // libgomp is built so (tls_model("initial-exec"), GCC 4.9 to 16). That of a program always is.
  if (!image.static_tls() && *image.path() != '\0') {
    leave_alone(image, "its thread-local storage is not static");
    return;
  }
  if (copies.size() + found_count == kMaxOpenMpCopies) {
    overflow = true;
    return;
  }
  copy.image = image;
  tls_modules[found_count] = tls_module_of(image);
  if (tls_modules[found_count] == 0) return;
  tls_parts[found_count] = offset;
  copy.tls_image = reinterpret_cast<const void*>(image.base() + tls->p_vaddr + offset);
  copy.tls_image_size = tls->p_filesz > offset ? tls->p_filesz - offset : 0;
  if (copy.tls_image_size > copy.tls_size) copy.tls_image_size = copy.tls_size;
  found[found_count++] = copy;
}

// The blocks of other modules are reached from here, so they lie outside of thread_state. The
// compiler must not see where the pointer comes from: with _FORTIFY_SOURCE=3, which Fedora and Arch
// set, a copy to there ends the process.
unsigned char* own_storage() {
  auto* storage = reinterpret_cast<unsigned char*>(&thread_state);
  asm("" : "+r"(storage));
  return storage;
}

// Calls the function by which compiled code asks for a thread-local variable, for the start of a
// module's block in this thread (ELF Handling For Thread-Local Storage). Null if there is none.
void* block_of_thread(size_t tls_module) {
  // The function is in ld.so. A reference by name would make ld.so a NEEDED of ours.
#if defined(__s390x__)
  constexpr const char* kName = "__tls_get_offset";
#else
  constexpr const char* kName = "__tls_get_addr";
#endif
  static void* function = nullptr;
  if (function == nullptr) function = find_function(kName);
  if (function == nullptr) return nullptr;
    // On some architectures it adds a distance of the ABI's (TLS_DTV_OFFSET, dl-tls.h).
#if defined(__riscv)
  constexpr size_t kDistance = 0x800;
#elif defined(__powerpc64__)
  constexpr size_t kDistance = 0x8000;
#else
  constexpr size_t kDistance = 0;
#endif
  const size_t module_and_offset[2] = {tls_module, 0 - kDistance};
#if defined(__s390x__)
  // It takes the distance of the pair from %r12, where a caller has its GOT, and returns the
  // distance from the thread pointer. It may save registers in the 160 bytes above %r15.
  register uintptr_t distance asm("r2") = reinterpret_cast<uintptr_t>(module_and_offset);
  register uintptr_t got asm("r12") = 0;
  asm volatile("aghi %%r15,-160\n\tbasr %%r14,%[function]\n\taghi %%r15,160"
               : "+r"(distance)
               : "r"(got), [function] "a"(function)
               : "r0", "r1", "r3", "r4", "r5", "r14", "f0", "f1", "f2", "f3", "f4", "f5", "f6",
                 "f7", "cc", "memory");
  return static_cast<char*>(__builtin_thread_pointer()) + distance;
#else
  return reinterpret_cast<void* (*)(const size_t*)>(function)(module_and_offset);
#endif
}

// The block is at the same distance in every thread, wherever the architecture puts it (variant I
// or II). Must not run in a fork: the linker may allocate, and before glibc 2.35 it may wait for
// dl_load_lock (elf/dl-tls.c, tls_get_addr_tail).
bool find_block(Copy* copy, size_t tls_module, size_t part) {
  const auto* block = static_cast<unsigned char*>(block_of_thread(tls_module));
  if (block != nullptr) copy->tls_offset = block + part - own_storage();
  return block != nullptr;
}

void seen_all() {
  for (int i = 0; i < found_count; ++i) {
    if (!is_its_turn(found[i].image) || !pin(found[i].image) ||
        !find_block(&found[i], tls_modules[i], tls_parts[i])) {
      continue;
    }
    lead_to_records(found[i].image);
    if (!lead_to_call_once(found[i].image)) {
      found[i].omp.get_default_device = nullptr;
      found[i].omp.set_default_device = nullptr;
    }
    if (logging()) {
      Line line;
      line.add("adopted ").add(name_of(found[i].image)).add(": GNU OpenMP");
      report(line.add(found[i].is_alone ? "" : ", linked in").text());
    }
    *copies.next() = found[i];
    copies.add();
    note_adoption();
    // The calls within an object pass no slot.
    if (options().child_threads != Options::kInherit && found[i].is_alone) {
      watch_callers(found[i].image, found[i].omp);
    }
  }
  found_count = 0;
  if (overflow) report("no room for one more copy of GNU OpenMP, which is left as it is");
  overflow = false;
}

// The first thread's stack is the one that the kernel has made.
__thread bool is_first_thread __attribute__((tls_model("initial-exec"))) = false;

// Whether a word of the block points into the part of this thread's stack that is in use. If so,
// the thread runs an explicit task: its record is on the stack of the thread that runs it (task.c,
// GOMP_task). Nothing else needs to be known of the words.
__attribute__((noinline)) bool points_into_stack(const unsigned char* block, size_t size) {
  const auto here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  // At the top of the first thread's stack are the random bytes that the kernel gives to a program.
  // At the top of another thread's stack, glibc puts the thread's static TLS.
  const uintptr_t end = is_first_thread ? getauxval(AT_RANDOM) : this_thread();
  // Farther away, this is not the thread's own stack but a coroutine's or a signal handler's. The
  // heap may lie in between.
  constexpr uintptr_t kLargestStack = 64 << 20;
  if (end <= here || end - here > kLargestStack) return false;
  for (size_t i = 0; i + sizeof(uintptr_t) <= size; i += sizeof(uintptr_t)) {
    uintptr_t word;
    memcpy(&word, block + i, sizeof word);
    // It is another stack too if a page in between can't be read: the one below the thread's own
    // stack, which stops a stack that grows too large.
    if (word >= here && word < end) return is_readable(here, end);
  }
  return false;
}

// Inside a region, task or teams construct the block is in use. The child may exec or exit, as
// POSIX says, and can't use OpenMP.
bool is_inside_construct(const Copy* copy, const unsigned char* block) {
  if (copy->omp.get_level() > 0) return true;
  if (copy->omp.get_num_teams != nullptr && copy->omp.get_num_teams() > 1) return true;
  // GCC 14 and later. Before, no function tells of a task outside of a region.
  if (copy->omp.in_explicit_task != nullptr) return copy->omp.in_explicit_task() != 0;
  return points_into_stack(block, copy->tls_size);
}

bool is_used(const Copy* copy, const unsigned char* block) {
  if (memcmp(block, copy->tls_image, copy->tls_image_size) != 0) return true;
  for (size_t i = copy->tls_image_size; i < copy->tls_size; ++i) {
    if (block[i] != 0) return true;
  }
  return false;
}

void reset_block(Copy* copy, unsigned char* block) {
  // What the block points to stays allocated. A copy of the block keeps the pointers, so a leak
  // checker finds them.
  memcpy(copy->block_before, block, copy->tls_size);
  memcpy(block, copy->tls_image, copy->tls_image_size);
  memset(block + copy->tls_image_size, 0, copy->tls_size - copy->tls_image_size);
}

// Nothing is noted in the parent: the forking thread's TLS block is the same in the child.
void child_first() {
  const int threads = options().child_threads;
  copies.each([threads](Copy* copy) {
    // The unnamed critical section and the fallback for atomics are two locks of libgomp's own,
    // which a thread that is gone may hold. To end one that is not held does no harm (config/linux/
    // mutex.h, gomp_mutex_unlock).
    if (copy->omp.critical_end != nullptr) copy->omp.critical_end();
    if (copy->omp.atomic_end != nullptr) copy->omp.atomic_end();

    unsigned char* block = own_storage() + copy->tls_offset;
    const bool used = is_used(copy, block);
    if (!used && threads == Options::kInherit) return;
    const bool inside = is_inside_construct(copy, block);
    handles_variables = true;
    const ControlVariables before = read_variables(copy->omp);
    record_to_give = &records[copies.index_of(copy)];
    int fresh = before.max_threads;
    if (used && !inside) {
      reset_block(copy, block);
      read_variable(copy->omp.get_max_threads, &fresh);
      write_variables(copy->omp, before);
    }
    if (threads != Options::kInherit) {
      if (threads > 0 && !inside && copy->omp.set_num_threads != nullptr) {
        copy->omp.set_num_threads(threads);
      }
      start_child_threads(copy->image, fresh);
    }
    record_to_give = nullptr;
    handles_variables = false;
  });
}

void start() { is_first_thread = true; }

}  // namespace

const Runtime gnu_openmp = {
    "GNU OpenMP", see, seen_all, nullptr, nullptr, nullptr, child_first, nullptr, start,
};

}  // namespace forksafe
