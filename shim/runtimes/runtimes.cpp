// SPDX-License-Identifier: Apache-2.0
#include "elf/loaded_objects.h"
#include "runtimes/runtime.h"

namespace forksafe {
namespace {

// Those that may wait for whole computations come first: while a fork waits for them, the others
// run on.
const Runtime* const kRuntimes[] = {
    &openblas_openmp, &openblas_threads, &blis, &mkl, &gnu_openmp,
};

}  // namespace

void look_at_loaded_objects() {
  const bool any =
      each_new_object([](const ElfImage& image, size_t tls_module, const ElfW(Phdr) * tls) {
        for (const Runtime* runtime : kRuntimes) {
          if (runtime->see != nullptr) runtime->see(image, tls_module, tls);
        }
      });
  if (any) run_step(&Runtime::seen_all);
}

void run_step(void (*Runtime::*step)()) {
  for (const Runtime* runtime : kRuntimes) {
    if (runtime->*step != nullptr) (runtime->*step)();
  }
}

}  // namespace forksafe
