// SPDX-License-Identifier: Apache-2.0
// Loads and unloads a library, as a tool does that only looks whether it can be loaded, then forks.
//
//   unloaded LIBRARY
#include "harm.h"

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 100);
  for (int i = 0; i < 3; ++i) {
    void* library = dlopen(harm::mode, RTLD_NOW);
    if (library == nullptr) harm::fail(dlerror());
    dlclose(library);
    harm::fork_chain(2);
  }
  harm::say("3 forks after dlclose");
  return 0;
}
