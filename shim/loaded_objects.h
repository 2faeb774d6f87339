// SPDX-License-Identifier: Apache-2.0
// The objects that the dynamic linker has loaded, in the order of its link map.
#pragma once

#include "elf_image.h"

namespace forksafe {

/// The dynamic linker's two counters, which change with every object loaded and unloaded.
struct LoadCounters {
  unsigned long long adds = 0;
  unsigned long long subs = 0;

  bool operator!=(const LoadCounters& other) const {
    return adds != other.adds || subs != other.subs;
  }
};

/// Reads the counters from the first object alone. Not for a child of fork: dl_load_write_lock is
/// not reset there (glibc 2.31 to 2.43).
LoadCounters load_counters();

/// Calls `visit(image, tls_module, tls)` for each object that can be read until it answers false.
/// `tls` is the object's PT_TLS, or null. The linker's lock is held: no dl* call from `visit`.
/// Not for a child of fork.
template <typename Visit>
void each_loaded_object(Visit visit) {
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        ElfImage image;
        if (!image.read(*info)) return 0;
        const ElfW(Phdr)* tls = nullptr;
        for (size_t i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type == PT_TLS) tls = &info->dlpi_phdr[i];
        }
        return (*static_cast<Visit*>(data))(image, info->dlpi_tls_modid, tls) ? 0 : 1;
      },
      &visit);
}

/// The object whose segments hold `address`; false where none does.
bool find_object(const void* address, ElfImage* image);

/// What a reference to `name` from `image` is bound to where the dynamic linker has not bound it
/// yet: the objects that were loaded at start first (the global scope), then the object itself,
/// then what it names in DT_NEEDED, then any other. Null where nobody defines it.
void* resolve(const ElfImage& image, const char* name);

/// The first definition of `name` in link map order outside of this library and its copies.
void* find_function(const char* name);

/// Keeps an object loaded for the life of the process. False where that can't be had (another
/// namespace). What was loaded at start can't be unloaded anyway.
bool pin(const ElfImage& image);

/// Remembers how many objects were loaded at start; to be called before anything is dlopened.
void remember_startup_objects();

}  // namespace forksafe
