// SPDX-License-Identifier: Apache-2.0
// The objects that the dynamic linker has loaded, in the order of its link map.
#pragma once

#include "elf/image.h"

namespace forksafe {

/// Calls `visit(info)` for each loaded object until it returns false. The linker's lock
/// (dl_load_write_lock) is held meanwhile, so `visit` must not call any dl* function. See
/// may_ask_linker().
template <typename Visit>
void each_object_info(Visit visit) {
  dl_iterate_phdr([](dl_phdr_info* info, size_t,
                     void* data) { return (*static_cast<Visit*>(data))(*info) ? 0 : 1; },
                  &visit);
}

/// The object's PT_TLS, or null.
inline const ElfW(Phdr) * tls_header(const dl_phdr_info& info) {
  const ElfW(Phdr)* tls = nullptr;
  for (size_t i = 0; i < info.dlpi_phnum; ++i) {
    if (info.dlpi_phdr[i].p_type == PT_TLS) tls = &info.dlpi_phdr[i];
  }
  return tls;
}

/// Calls `visit(image, tls_module, tls)` for each object that can be read, until it returns false.
/// The same rules hold.
template <typename Visit>
void each_loaded_object(Visit visit) {
  each_object_info([&](const dl_phdr_info& info) {
    ElfImage image;
    return !image.read(info) || visit(image, info.dlpi_tls_modid, tls_header(info));
  });
}

/// Calls `see` for each object that was loaded since the last call. Only for a thread that is in
/// the dynamic linker, which runs an object's constructors, and for the start of the process, in
/// which usually no other thread loads anything (docs/locks.md). An object beyond the 4096th may be
/// seen again. False if nothing has changed.
bool each_new_object(void (*see)(const ElfImage& image, size_t tls_module, const ElfW(Phdr) * tls));

/// Whether the linker's lock may be waited for. A thread of the parent may have held
/// dl_load_write_lock at the fork, and glibc does not reset it in the child (2.31 to 2.43). A
/// thread of the child that waits for it then hangs. When the child has loaded something by itself,
/// the lock is known to be free.
bool may_ask_linker();

/// To be called in a child of fork, before anything else.
void distrust_linker();

/// The object whose segments hold `address`; false if none does.
bool find_object(const void* address, ElfImage* image);

/// The function to which the dynamic linker will bind a reference to `name` from `image`. Searched
/// are the objects that were loaded at start (the global scope), then the object itself, then the
/// objects that it names in DT_NEEDED, then all others. Null if no object defines it.
void* resolve(const ElfImage& image, const char* name);

/// The first definition of `name` in link map order outside of this library and its copies.
void* find_function(const char* name);

/// The first definition of `name` behind this library in link map order, as dlsym(RTLD_NEXT) finds
/// it, without copies of this library. Null if there is none.
void* find_next_function(const char* name);

/// Whether an object may be pinned: it was loaded at start, or its constructors are the next to
/// run. pin() would run the constructors of an object that waits for its turn behind others. If
/// that is so, turn_of() tells when the turn has come.
bool is_its_turn(const ElfImage& image);

/// The object that holds the address `caller` is about to run its constructors. Null: it is not
/// known which one is, and all may be pinned. True if is_its_turn() was false for it.
bool turn_of(const void* caller);

/// Keeps an object loaded for the life of the process. False if that is not possible (another
/// namespace). Objects that were loaded at start are never unloaded. To be called from a
/// constructor only: it waits for the linker's lock (dl_load_lock).
bool pin(const ElfImage& image);

/// Remembers how many objects were loaded at start. To be called before anything is dlopened.
void remember_startup_objects();

}  // namespace forksafe
