// SPDX-License-Identifier: Apache-2.0
// Loads a BLAS, then forksafe's library, then unloads the BLAS, and forks. Where the library is
// loaded so late it can guard nothing.
//
//   loaded_late FORKSAFE LIBRARY [PREFIX [SUFFIX]]
#include "program.h"

int main(int argc, char** argv) {
  using namespace harm;
  if (argc < 3) finish(2, "usage: loaded_late FORKSAFE LIBRARY [PREFIX [SUFFIX]]");
  void* blas = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
  if (blas == nullptr) finish(2, "%s", dlerror());
  if (dlopen(argv[1], RTLD_NOW) == nullptr) finish(2, "%s", dlerror());
  dlclose(blas);
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    require_success(child, 20, "a child");
  }
  finish(0, "3 forks");
}
