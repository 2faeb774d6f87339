// SPDX-License-Identifier: Apache-2.0
// While a library is loaded nobody calls dl_iterate_phdr, which holds dl_load_write_lock. A child
// that another thread forks meanwhile would find that lock held, and hang in its own dlopen.
//
// quiet_loading [LIBRARY]: after LIBRARY was loaded.
#include <link.h>

#include "harm.h"
#include "plugin.h"

namespace {

std::atomic<int> calls{0};
std::atomic<int> constructed{0};

}  // namespace

extern "C" int dl_iterate_phdr(int (*callback)(dl_phdr_info*, size_t, void*), void* data) {
  ++calls;
  using Iterate = int (*)(int (*)(dl_phdr_info*, size_t, void*), void*);
  static const auto next = reinterpret_cast<Iterate>(dlsym(RTLD_NEXT, "dl_iterate_phdr"));
  return next(callback, data);
}

void in_plugin_constructor(RegisterForkHandlers) { ++constructed; }
void in_plugin_destructor() {}

int main(int argc, char** argv) {
  harm::begin(argc, argv, 10, 1);
  if (*harm::mode != '\0' && dlopen(harm::mode, RTLD_NOW) == nullptr) harm::skip(dlerror());
  for (int i = 0; i < 3; ++i) {  // at the same addresses, and at others
    calls = 0;
    void* a = harm::load("plugin_a");
    void* both = harm::load("needs_plugin");
    const int while_loading = calls;
    harm::say("%d constructors, %d calls", constructed.load(), while_loading);
    dlclose(both);
    if (i != 0) dlclose(a);
  }
  return 0;
}
