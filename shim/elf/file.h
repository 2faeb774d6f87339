// SPDX-License-Identifier: Apache-2.0
// The full symbol table (.symtab) of an object's file, where it was not stripped off. It names
// static variables, and functions with hidden visibility, that .dynsym does not.
#pragma once

#include "elf/image.h"

namespace forksafe {

/// Walks the .symtab of the file at `path` and calls `visit(name, value, size, context)` for each
/// defined function or variable; `value` is relative to the object's base. False when the file
/// can't be read, is malformed, or has no .symtab. `path` may be empty: the program itself.
bool each_file_symbol(const char* path,
                      void (*visit)(const char* name, uintptr_t value, size_t size, void* context),
                      void* context);

}  // namespace forksafe
