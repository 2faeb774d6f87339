// SPDX-License-Identifier: Apache-2.0
#include "runtimes/runtime.h"

namespace forksafe {
namespace {

const Runtime* const kRuntimes[] = {
#define RUNTIME(name) &(name),
#include "runtimes/table.def"
#undef RUNTIME
};

}  // namespace

void show_to_runtimes(const ElfImage& image) {
  for (const Runtime* runtime : kRuntimes) {
    if (runtime->see != nullptr) runtime->see(image);
  }
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
