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

/// Calls `visit(image)` for each object that can be read, until it returns false. The same rules
/// hold.
template <typename Visit>
void each_loaded_object(Visit visit) {
  each_object_info([&](const dl_phdr_info& info) {
    ElfImage image;
    return !image.read(info) || visit(image);
  });
}

/// Calls `see` for each object that was loaded since the last call. Only for a thread that is in
/// the dynamic linker, which runs the constructors of the object that holds `caller`, and for the
/// start of the process, in which usually no other thread loads anything (docs/locks.md). Takes the
/// linker's lock at the start only, and for null: it is not known which object that is. An object
/// may be seen again if it is beyond the 4096th. False if nothing is new.
bool each_new_object(const void* caller, void (*see)(const ElfImage& image));

/// Whether the linker's lock may be waited for. A thread of the parent may have held
/// dl_load_write_lock at the fork, and glibc does not reset it in the child (2.31 to 2.43). A
/// thread of the child that waits for it then hangs. When the child has loaded something by itself,
/// the lock is known to be free.
bool may_ask_linker();

/// For a thread that is about to run the constructors of the object that holds `caller`: whether
/// they have run before, so that the object was unloaded, and came again at the same address. Takes
/// no lock. `image` gets the object. False where that can't be told without the linker.
bool came_again(const void* caller, ElfImage* image);

/// To be called in a child of fork, before anything else.
void distrust_linker();

/// How many forks lie between this process and the one that was started.
uint32_t process_generation();

/// The module of the object's thread-local storage (__tls_get_addr), or 0. Asks the linker.
size_t tls_module_of(const ElfImage& image);

/// The object whose segments hold `address`; false if none does.
bool find_object(const void* address, ElfImage* image);

/// The object that holds the code at `address`, found by its ELF header, which is the nearest
/// below. Asks the kernel about each page between them, and never the linker. False if there is
/// none within a GiB. The path stays empty.
bool find_object_by_header(const void* address, ElfImage* image);

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
