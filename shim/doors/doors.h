// SPDX-License-Identifier: Apache-2.0
// Doors: a module's own imports, in its own GOT, led through functions of ours.
//
// Interposing OpenBLAS's internals by name is not enough: the wheels' builds have protected or
// hidden internals, and several copies live in one process. What every build has is its imports.
// Only the adopted module's calls are seen; the rest of the process keeps calling libc directly.
#pragma once

#include "doors/module.h"

namespace forksafe {

/// Points each JUMP_SLOT and GLOB_DAT entry of the module for one of its doors to our function,
/// and fills in `behind`. RELRO pages are opened and closed again. False when memory can't be made
/// writable: then nothing was changed.
bool install_doors(Module* module);

/// Does the same with the slots of another object by which it calls what the module's own lead to.
bool install_doors_beside(Module* module, const ElfImage& object);

/// The name that `door` goes by in an object's imports.
const char* door_name(Door door);

}  // namespace forksafe
