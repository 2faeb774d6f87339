// SPDX-License-Identifier: Apache-2.0
// The ways in: what the preloaded library exports, and its constructor.
//
// - fork, __fork, forkpty: our first and last steps stand around everybody's fork handlers.
// - __register_atfork: every pthread_atfork, and so OpenBLAS, comes by here.
// - __gmon_start__: every object that is loaded comes by here.
// - forksafe_state: for programs that look from outside.
//
// Rules of the house, for all code in this folder:
// - NEEDED is libc alone, with nothing that glibc 2.31 has not.
// - Handlers and doors never allocate, never use stdio, keep errno, and touch few pages.
// - They make no system call that is a cancellation point.
// - A fork never calls the dynamic linker, and holds no lock of ours while foreign code runs.
// - prepare, parent and child of a runtime stand side by side in its file.
// - What can't be done safely is not done: no patching of code, no guessing of a struct's layout.
// - No signal is sent to other threads.
// - Constants initialise static variables: the first call comes before our own constructors.
// - Every workaround names the version that forces it.
#include <pty.h>
#include <unistd.h>

#include <cerrno>

#include "elf/loaded_objects.h"
#include "fork_handlers.h"
#include "options.h"
#include "runtimes/openblas/adopt.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"
#include "state.h"

#define FORKSAFE_EXPORT extern "C" __attribute__((visibility("default")))

namespace forksafe {
namespace {

// The functions behind ours: those that our callers would have come to without us.
struct Next {
  RegisterAtfork register_atfork;
  pid_t (*fork)();
  int (*forkpty)(int*, char*, const termios*, const winsize*);
};
Next next = {};
bool started = false;
bool active = false;

template <typename Function>
void find_next(const char* name, Function* function) {
  if (*function == nullptr) *function = reinterpret_cast<Function>(find_next_function(name));
}

void find_next_functions() {
  find_next("__register_atfork", &next.register_atfork);
  find_next("fork", &next.fork);
  find_next("forkpty", &next.forkpty);  // before glibc 2.34 in libutil, which may be loaded later
}

// Of several copies in LD_PRELOAD, the dynamic linker binds the name of the state to the first, for
// all of them. The others leave everything to it.
bool is_first_copy() {
  ElfImage holder;
  return find_object(&forksafe_state, &holder) &&
         holder.span().contains(reinterpret_cast<const void*>(&is_first_copy));
}

// The first call comes from an object that is loaded at start, in its _init or a constructor: there
// is one thread, and nothing was dlopened yet. It comes before the constructors of all objects with
// an _init: libgomp's may bind the first thread to one processor (OMP_PROC_BIND).
void start() {
  if (started) return;
  find_next_functions();
  // An object that needs no libc may be initialised before libc is: then there is no environment
  // yet.
  if (environ == nullptr) return;
  started = true;
  init_options();
  active = options().enabled && next.register_atfork != nullptr && is_first_copy();
  if (!active) return;
  forksafe_state.enabled = 1;
  remember_startup_objects();
  remember_environment();
  if (options().child_threads == Options::kAuto) start_fork_tree();
  register_head(next.register_atfork);
}

// In the dynamic linker, before an object's constructors: the thread holds the linker's lock, and
// the linker has just taken the lock that dl_iterate_phdr takes. Or at the start of the process.
void object_is_loaded() {
  start();
  if (!active) return;
  if (next.forkpty == nullptr) find_next_functions();
  look_at_loaded_objects();
}

__attribute__((constructor)) void construct() { object_is_loaded(); }

int register_handlers(void (*prepare)(), void (*parent)(), void (*child)(), void* dso) {
  start();
  if (next.register_atfork == nullptr) return ENOMEM;
  if (active) {
    const bool prepare_alone = prepare != nullptr && parent == nullptr && child == nullptr;
    if (prepare_alone && adopt_openblas(prepare)) return 0;
    if (child != nullptr) note_child_handler();
  }
  return next.register_atfork(prepare, parent, child, dso);
}

// Calls a function of glibc's that forks, between our first and our last steps.
template <typename Function, typename... Arguments>
int forks(Function Next::*function, Arguments... arguments) {
  start();
  if (next.*function == nullptr) {
    errno = ENOSYS;
    return -1;
  }
  if (!active) return (next.*function)(arguments...);
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

/// Calls fork inside libc, where no interposition reaches (glibc 2.34 to 2.43, login/forkpty.c). So
/// does daemon, but its name is taken too often: a library's own variable or function would be
/// ours.
FORKSAFE_EXPORT int forkpty(int* master, char* name, const termios* settings,
                            const winsize* size) noexcept {
  return forksafe::forks(&Next::forkpty, master, name, settings, size);
}

/// pthread_atfork is a static stub in every object, which calls this function of glibc's through
/// the object's PLT (glibc 2.31 to 2.43, nptl/pthread_atfork.c): all registrations come by here.
FORKSAFE_EXPORT int __register_atfork(void (*prepare)(), void (*parent)(), void (*child)(),
                                      void* dso) {
  return forksafe::register_handlers(prepare, parent, child, dso);
}

/// The start files of every object call this function in _init, before the object's constructors,
/// if somebody defines it (glibc 2.31 to 2.43, sysdeps/<machine>/crti.S): it is how gprof is
/// started in a program that is built with -pg, which brings its own definition. No library has
/// one.
FORKSAFE_EXPORT void __gmon_start__() { forksafe::object_is_loaded(); }
