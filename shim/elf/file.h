// SPDX-License-Identifier: Apache-2.0
// The full symbol table (.symtab) of an object's file, if it was not stripped. It has the static
// variables and the functions with hidden visibility, which .dynsym lacks.
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
