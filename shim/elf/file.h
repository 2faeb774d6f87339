// SPDX-License-Identifier: Apache-2.0
// The full symbol table (.symtab) of an object's file, if it was not stripped. It has the static
// variables and the functions with hidden visibility, which .dynsym lacks.
#pragma once

#include "elf/image.h"

namespace forksafe {

/// Walks the .symtab of the file at `path` and calls `visit(name, value, size, context)` for each
/// defined function or variable; `value` is relative to the object's base. False when the file
/// can't be read, is malformed, or has no .symtab or one above 256 MiB. `path` may be empty: the
/// program itself.
bool each_file_symbol(const char* path,
                      void (*visit)(const char* name, uintptr_t value, size_t size, void* context),
                      void* context);

/// A thread-local variable.
struct ThreadLocal {
  size_t offset = 0;  ///< in the thread-local storage of its object
  size_t size = 0;    ///< 0 if there is no such variable
};

/// The thread-local variable `name` in the .symtab of the file at `path`.
ThreadLocal find_file_thread_local(const char* path, const char* name);

}  // namespace forksafe
