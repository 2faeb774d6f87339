// SPDX-License-Identifier: Apache-2.0
// The way in: what the preloaded library exports, and its constructor.
//
// Rules of the house, for all code in this folder:
// - NEEDED is libc alone, with nothing that glibc 2.31 has not.
// - Handlers and doors never allocate, never use stdio, keep errno, and touch few pages.
// - The dynamic linker is never called in a child.
// - prepare, parent and child of a runtime stand side by side in its file.
// - What can't be done safely is not done: no patching of code, no guessing of a struct's layout,
// no
//   signal to other threads.
// - Every workaround names the version that forces it.
#include <cerrno>

#include "fork_handlers.h"
#include "fork_tree.h"
#include "loaded_objects.h"
#include "openblas.h"
#include "options.h"
#include "report.h"
#include "runtime.h"
#include "state.h"

namespace forksafe {
namespace {

RegisterAtfork next_register_atfork = nullptr;
bool active = false;

// Of several copies in LD_PRELOAD, the dynamic linker binds the name of the state to the first, for
// all of them. The others leave everything to it.
bool is_first_copy() {
  ElfImage holder;
  return find_object(&forksafe_state, &holder) &&
         holder.span().contains(reinterpret_cast<const void*>(&is_first_copy));
}

// The first call comes from the constructor of a library that is loaded at start, or from our own:
// there is one thread, and nothing was dlopened yet.
void start() {
  if (next_register_atfork != nullptr) return;
  next_register_atfork = reinterpret_cast<RegisterAtfork>(find_function("__register_atfork"));
  init_options();
  active = options().enabled && next_register_atfork != nullptr && is_first_copy();
  if (!active) return;
  forksafe_state.enabled = 1;
  remember_startup_objects();
  remember_environment();
  if (options().child_threads == Options::kAuto) start_fork_tree();
  register_head(next_register_atfork);
}

int register_handlers(void (*prepare)(), void (*parent)(), void (*child)(), void* dso) {
  start();
  if (next_register_atfork == nullptr) return ENOMEM;
  if (!active) return next_register_atfork(prepare, parent, child, dso);
  if (prepare != nullptr && adopt_openblas(prepare)) {
    if (parent == nullptr && child == nullptr) return 0;
    prepare = nullptr;
  }
  const int result = next_register_atfork(prepare, parent, child, dso);
  if (result == 0) register_tail(next_register_atfork);
  return result;
}

__attribute__((constructor)) void construct() {
  start();
  if (active) look_at_loaded_objects();
}

}  // namespace
}  // namespace forksafe

/// pthread_atfork is a static stub in every object, which calls this function of glibc's through
/// the object's PLT (glibc 2.31 to 2.43, nptl/pthread_atfork.c): all registrations come by here.
extern "C" __attribute__((visibility("default"))) int __register_atfork(void (*prepare)(),
                                                                        void (*parent)(),
                                                                        void (*child)(),
                                                                        void* dso) {
  return forksafe::register_handlers(prepare, parent, child, dso);
}
