// SPDX-License-Identifier: Apache-2.0
// The ways in: what the preloaded library exports, and its constructor.
//
// - fork, __fork, forkpty: our first and last steps stand around all fork handlers.
// - __register_atfork: every pthread_atfork calls it, and so does OpenBLAS.
// - __gmon_start__: every object calls it when it is loaded.
// - pthread_key_create, on RISC-V only, where nothing calls __gmon_start__.
// - forksafe_state: for programs that read this process from outside.
//
// Rules for all code in this folder:
// - NEEDED is libc alone, and no function newer than glibc 2.31.
// - Handlers and doors never allocate, never use stdio, keep errno, and touch few pages.
// - They make no system call that is a cancellation point.
// - A fork never calls the dynamic linker, and waits for nothing without a bound.
// - The prepare, parent and child steps of a runtime stand side by side in its file.
// - The library does nothing that can't be done safely: it patches no code and guesses no struct's
//   layout.
// - It sends no signal to other threads.
// - Static variables are initialised by constants: the first call comes before our own
// constructors.
// - Every workaround names the version that forces it.
#include <pthread.h>
#include <pty.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "elf/loaded_objects.h"
#include "first_fork.h"
#include "fork_handlers.h"
#include "options.h"
#include "registrations.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"
#include "state.h"

#define FORKSAFE_EXPORT extern "C" __attribute__((visibility("default")))

namespace forksafe {
namespace {

// The functions behind ours, which our callers would have called without us.
struct Next {
  RegisterAtfork register_atfork;
  pid_t (*fork)();
  int (*forkpty)(int*, char*, const termios*, const winsize*);
#if defined(__riscv)
  int (*pthread_key_create)(pthread_key_t*, void (*)(void*));
#endif
};
Next next = {};
bool started = false;
bool active = false;

template <typename Function>
void find_next(const char* name, Function* function) {
  if (*function != nullptr) return;
  void* found = find_next_function(name);
  if (found == nullptr) found = find_function(name);  // where this library was dlopened
  *function = reinterpret_cast<Function>(found);
}

void find_next_functions() {
  find_next("__register_atfork", &next.register_atfork);
  find_next("fork", &next.fork);
  find_next("forkpty", &next.forkpty);
#if defined(__riscv)
  find_next("pthread_key_create", &next.pthread_key_create);  // before glibc 2.34 in libpthread
#endif
}

// Before glibc 2.34 forkpty is in libutil, which may be loaded later. It must not be unloaded then.
ElfImage libutil;  // of the look under way

void see_forkpty(const ElfImage& image) {
  if (next.forkpty != nullptr) return;
  const char* name = image.soname();
  if (name == nullptr || strcmp(name, "libutil.so.1") != 0) return;
  next.forkpty = reinterpret_cast<decltype(next.forkpty)>(image.find("forkpty").address);
  libutil = image;
}

void pin_forkpty() {
  if (libutil.base() != 0 && !pin(libutil)) next.forkpty = nullptr;
  libutil = ElfImage();
}

// If this library is preloaded, libc lies behind it in link map order. If it is dlopened, libc lies
// before it: calls don't come here, and a runtime that is loaded already may be unloaded.
bool is_preloaded() { return find_next_function("__register_atfork") != nullptr; }

// If LD_PRELOAD has several copies of this library, the dynamic linker binds the state's name to
// the first copy, for all of them. The other copies leave everything to the first.
bool is_first_copy() {
  ElfImage holder;
  return find_object(&forksafe_state, &holder) &&
         holder.span().contains(reinterpret_cast<const void*>(&is_first_copy));
}

// If the library is preloaded, the first call comes from the _init or a constructor of an object
// that is loaded at start. There is one thread, and nothing was dlopened yet. The call comes before
// the constructors of all objects with an _init. That matters because libgomp's constructor may
// bind the first thread to one processor (OMP_PROC_BIND).
void start() {
  if (started) return;
  find_next_functions();
  // An object that does not need libc may be initialised before libc. There is no environment then.
  if (environ == nullptr) return;
  started = true;
  init_options();
  const bool preloaded = is_preloaded();
  if (preloaded) remember_startup_objects();
  active = options().enabled && preloaded && is_first_copy();
  if (!active) return;
  forksafe_state.enabled = 1;
  run_step(&Runtime::start);
  if (options().child_threads == Options::kAuto) start_fork_tree();
  register_head(next.register_atfork);
}

// Called in the dynamic linker, before an object's constructors, or at the start of the process. In
// the linker the thread holds the lock of dlopen. `caller`: an address in the object; null:
// unknown.
void object_is_loaded(const void* caller) {
  start();
  // An inactive library looks for forkpty alone.
  if (!started || (!active && next.forkpty != nullptr)) return;
  const bool again = turn_of(caller);
  // What it registers now is not what the child has inherited.
  ElfImage reloaded;
  if (active && !may_ask_linker() && came_again(caller, &reloaded)) see_loaded(reloaded);
  const bool any = each_new_object(caller, [](const ElfImage& image) {
    see_forkpty(image);
    if (!active) return;
    see_loaded(image);
    show_to_runtimes(image);
  });
  ElfImage waited;
  if (again && may_ask_linker() && find_object(caller, &waited)) show_to_runtimes(waited);
  if (!any && !again) return;
  pin_forkpty();
  if (active) run_step(&Runtime::seen_all);
}

__attribute__((constructor)) void construct() { object_is_loaded(nullptr); }

#if defined(__riscv)
bool is_in_openmp(const void* function) {
  ElfImage image;
  return may_ask_linker() && find_object(function, &image) &&
         image.find("GOMP_parallel").address != nullptr;
}
#endif

int register_handlers(void (*prepare)(), void (*parent)(), void (*child)(), void* dso) {
  start();
  if (next.register_atfork == nullptr) return ENOMEM;
  if (active) {
    const bool prepare_alone = prepare != nullptr && parent == nullptr && child == nullptr;
    if (prepare_alone && is_replaced(prepare)) return 0;
    if (is_inherited({prepare, parent, child, dso})) return 0;
    if (child != nullptr) note_child_handler();
  }
  const int result = next.register_atfork(prepare, parent, child, dso);
  if (active && result == 0) remember({prepare, parent, child, dso});
  return result;
}

#if defined(__riscv)
int make_key(pthread_key_t* key, void (*destructor)(void*)) {
  start();
  find_next("pthread_key_create", &next.pthread_key_create);
  if (next.pthread_key_create == nullptr) return EAGAIN;
  if (active && destructor != nullptr && is_in_openmp(reinterpret_cast<void*>(destructor))) {
    object_is_loaded(nullptr);  // BLIS, which needs it, makes no key: it is pinned before its turn
  }
  return next.pthread_key_create(key, destructor);
}
#endif

// Calls a function of glibc's that forks, between our first and our last steps.
template <typename Function, typename... Arguments>
int forks(Function Next::*function, Arguments... arguments) {
  start();
  if (next.*function == nullptr) {
    errno = ENOSYS;
    return -1;
  }
  if (!active) {
    const int result = (next.*function)(arguments...);
    // The child will look for it. An active library does this in a fork handler.
    if (result == 0 && next.forkpty == nullptr) distrust_linker();
    return result;
  }
  report_first_fork();
  const OuterFork outer = before_fork();
  const int result = (next.*function)(arguments...);
  after_fork(outer);
  return result;
}

}  // namespace
}  // namespace forksafe

using forksafe::Next;

FORKSAFE_EXPORT pid_t fork() noexcept { return forksafe::forks(&Next::fork); }

/// fork by its other public name (glibc 2.31 to 2.43).
FORKSAFE_EXPORT pid_t __fork() noexcept { return forksafe::forks(&Next::fork); }

/// Calls fork inside libc, out of reach of our fork (glibc 2.34 to 2.43, login/forkpty.c). daemon
/// does the same, but many libraries have a variable or a function named daemon, which ours would
/// replace.
FORKSAFE_EXPORT int forkpty(int* master, char* name, const termios* settings,
                            const winsize* size) noexcept {
  return forksafe::forks(&Next::forkpty, master, name, settings, size);
}

/// pthread_atfork is a static stub in every object. It calls this function of glibc's through the
/// object's PLT (glibc 2.31 to 2.43, nptl/pthread_atfork.c), so this function sees all
/// registrations.
FORKSAFE_EXPORT int __register_atfork(void (*prepare)(), void (*parent)(), void (*child)(),
                                      void* dso) {
  return forksafe::register_handlers(prepare, parent, child, dso);
}

/// If an object defines this function, the start files of every object call it in _init, before the
/// object's constructors (glibc 2.31 to 2.43, sysdeps/<machine>/crti.S). gprof is started so: a
/// program that is built with -pg has its own definition. No library has one.
FORKSAFE_EXPORT void __gmon_start__() { forksafe::object_is_loaded(__builtin_return_address(0)); }

#if defined(__riscv)
/// The objects of this architecture have no _init, and their start files call nothing (glibc 2.27
/// to 2.43). GNU OpenMP's constructor makes a key whose destructor is its own (team.c, GCC 7 to
/// 16).
FORKSAFE_EXPORT int pthread_key_create(pthread_key_t* key, void (*destructor)(void*)) noexcept {
  return forksafe::make_key(key, destructor);
}
#endif
