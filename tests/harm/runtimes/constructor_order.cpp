// SPDX-License-Identifier: Apache-2.0
// constructor_order PLUGIN: a library is dlopened. It needs GNU OpenMP, whose constructor reads
// OMP_NUM_THREADS, and a library whose constructor has set that before. This file is all three.
#if defined(SETTER)
#include <cstdlib>

__attribute__((constructor)) static void set() { setenv("OMP_NUM_THREADS", "7", 1); }
extern "C" void keep_setter() {}
#elif defined(PLUGIN)
#include <omp.h>

extern "C" void keep_setter();
extern "C" int threads() {
  keep_setter();
  return omp_get_max_threads();
}
#else
#include "program.h"

int main(int argc, char** argv) {
  using namespace harm;
  void* const plugin = argc > 1 ? dlopen(argv[1], RTLD_NOW) : nullptr;
  if (plugin == nullptr) finish(2, "%s", dlerror());
  const int threads = reinterpret_cast<int (*)()>(dlsym(plugin, "threads"))();
  finish(threads == 7 ? 0 : 1, "%d threads", threads);
}
#endif
