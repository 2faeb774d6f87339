// SPDX-License-Identifier: Apache-2.0
// The functions by which a program sets a runtime's number of threads, such as
// openblas_set_num_threads. A number that the program sets in a child wins over
// FORKSAFE_CHILD_THREADS=auto, even if it is the number that the child has already. Such a call has
// no effect that could be seen afterwards, so the library watches the calls.
#pragma once

#include "elf/image.h"

namespace forksafe {

/// From now on `set_by_program(index)` is called before each call of `setter`, a function of
/// `image` that takes one argument. Objects that are loaded already and linked with `image` reach
/// our function through their own slots. Later objects, and dlsym (ctypes, and with it
/// threadpoolctl), find our function by the symbol. Must not be called
/// from a child handler.
void watch_setter(const ElfImage& image, const Symbol& setter, void (*set_by_program)(int index),
                  int index);

}  // namespace forksafe
