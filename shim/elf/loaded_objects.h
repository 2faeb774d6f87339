// SPDX-License-Identifier: Apache-2.0
// The objects that the dynamic linker has loaded, in the order of its link map.
#pragma once

#include "elf/image.h"

namespace forksafe {

/// Calls `visit(info)` for each loaded object until it answers false. The linker's lock
/// (dl_load_write_lock) is held: no dl* call from `visit`. See may_ask_linker().
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

/// Calls `visit(image, tls_module, tls)` for each object that can be read until it answers false.
/// The same rules.
template <typename Visit>
void each_loaded_object(Visit visit) {
  each_object_info([&](const dl_phdr_info& info) {
    ElfImage image;
    return !image.read(info) || visit(image, info.dlpi_tls_modid, tls_header(info));
  });
}

/// Calls `see` for each object that was loaded since the last call; for all of them where one was
/// unloaded since. For a thread that is in the dynamic linker, which runs an object's constructors,
/// and for the start of the process: nobody else loads anything meanwhile. False where nothing is
/// new.
bool each_new_object(void (*see)(const ElfImage& image, size_t tls_module, const ElfW(Phdr) * tls));

/// Whether the linker's lock is known to be sound. In a process that came by fork, a thread of the
/// parent may have held dl_load_write_lock, which glibc does not reset there (2.31 to 2.43):
/// whoever waits for it hangs. Once the process has loaded something by itself, the lock is its
/// own.
bool may_ask_linker();

/// In a child of fork, first of all.
void distrust_linker();

/// The object whose segments hold `address`; false where none does.
bool find_object(const void* address, ElfImage* image);

/// What a reference to `name` from `image` is bound to where the dynamic linker has not bound it
/// yet: the objects that were loaded at start first (the global scope), then the object itself,
/// then what it names in DT_NEEDED, then any other. Null where nobody defines it.
void* resolve(const ElfImage& image, const char* name);

/// The first definition of `name` in link map order outside of this library and its copies.
void* find_function(const char* name);

/// The first definition of `name` behind this library in link map order, as dlsym(RTLD_NEXT) has
/// it, copies of this library left out; where there is none, the first of all.
void* find_next_function(const char* name);

/// Keeps an object loaded for the life of the process. False where that can't be had (another
/// namespace). What was loaded at start can't be unloaded anyway. Only from a constructor: it waits
/// for the linker's lock (dl_load_lock).
bool pin(const ElfImage& image);

/// Remembers how many objects were loaded at start; to be called before anything is dlopened.
void remember_startup_objects();

}  // namespace forksafe
