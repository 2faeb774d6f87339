// SPDX-License-Identifier: Apache-2.0
// The functions by which a program sets a runtime's number of threads: openblas_set_num_threads and
// its like. A number that the program sets in a child wins over FORKSAFE_CHILD_THREADS=auto, also
// where it is the very number that is in force: hence the calls are seen, not guessed by their
// effect.
#pragma once

#include "elf/image.h"

namespace forksafe {

/// Has `set_by_program(index)` called before each call of `setter`, a function of `image` that
/// takes one argument. Objects that are linked with `image` and loaded already are led by us
/// through their own slots; others, and dlsym (ctypes, and with it threadpoolctl), find us by the
/// symbol. Not in a handler of a child.
void watch_setter(const ElfImage& image, const Symbol& setter, void (*set_by_program)(int index),
                  int index);

}  // namespace forksafe
