// SPDX-License-Identifier: Apache-2.0
#include "elf/loaded_objects.h"
#include "runtimes/runtime.h"

namespace forksafe {
namespace {

const Runtime* const kRuntimes[] = {
#define RUNTIME(name) &(name),
#include "runtimes/table.def"
#undef RUNTIME
};

void see(const ElfImage& image, size_t tls_module, const ElfW(Phdr) * tls) {
  for (const Runtime* runtime : kRuntimes) {
    if (runtime->see != nullptr) runtime->see(image, tls_module, tls);
  }
}

}  // namespace

void look_at_loaded_objects(const void* caller) {
  // Its turn has come: see it again.
  const bool again = turn_of(caller);
  const bool any = each_new_object(see);
  if (again && may_ask_linker()) {
    each_loaded_object([&](const ElfImage& image, size_t tls_module, const ElfW(Phdr) * tls) {
      const bool found = image.span().contains(caller);
      if (found) see(image, tls_module, tls);
      return !found;
    });
  }
  if (any || again) run_step(&Runtime::seen_all);
}

void run_step(void (*Runtime::*step)()) {
  for (const Runtime* runtime : kRuntimes) {
    if (runtime->*step != nullptr) (runtime->*step)();
  }
}

bool is_replaced(void (*prepare)()) {
  for (const Runtime* runtime : kRuntimes) {
    if (runtime->replaces != nullptr && runtime->replaces(prepare)) return true;
  }
  return false;
}

}  // namespace forksafe
