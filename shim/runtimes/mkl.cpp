// SPDX-License-Identifier: Apache-2.0
// Intel MKL on an OpenMP runtime (libmkl_intel_thread, libmkl_gnu_thread; 2019 to 2026).
//
// MKL has no threads of its own. A fork harms only the OpenMP runtime below it, whose file has the
// cure. What is left for this file is FORKSAFE_CHILD_THREADS=auto: MKL is told a child's share.
//
// MKL's threading layer asks the runtime at each computation how many threads there are, unless the
// program has called MKL_Set_Num_Threads. So a function of ours in the layer's own slot answers.
// The answer may change at any time: unlike a program, MKL keeps nothing between calls whose size
// depends on it.
#include <cstring>

#include "elf/slots.h"
#include "options.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

// Usually a process has one layer. A program that bundles MKL may have its own beside another one.
constexpr int kMaxLayers = 4;

struct Layer {
  ElfImage image;
  int (*get_max_threads)();  // the runtime's
};

Layer layers[kMaxLayers] = {};
int layer_count = 0;

template <int Index>
int get_max_threads() {
  const int threads = layers[Index].get_max_threads();
  const int share = thread_share();
  return share != 0 && share < threads ? share : threads;
}

constexpr int (*kFunctions[kMaxLayers])() = {
    get_max_threads<0>,
    get_max_threads<1>,
    get_max_threads<2>,
    get_max_threads<3>,
};

void see(const ElfImage& image) {
  if (options().child_threads != Options::kAuto) return;
  if (image.find("mkl_serv_domain_get_max_threads").address == nullptr) return;
  // A layer that was unloaded may be loaded again.
  const int index = index_of_image(layers, layer_count, image);
  if (index == kMaxLayers) return;
  redirect_slots(
      image, [](const char* name) { return strcmp(name, "omp_get_max_threads") == 0 ? 0 : -1; },
      [&](int, void* behind) -> void* {
        void* const ours = reinterpret_cast<void*>(kFunctions[index]);
        if (behind == ours) return nullptr;
        layers[index] = {image, reinterpret_cast<int (*)()>(behind)};
        if (layer_count == index) layer_count = index + 1;
        return ours;
      });
}

}  // namespace

const Runtime mkl = {
    "Intel MKL", see, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace forksafe
