// SPDX-License-Identifier: Apache-2.0
#include "runtimes/openblas/openblas.h"

#include "elf/loaded_objects.h"
#include "report.h"
#include "sharing/fork_tree.h"

namespace forksafe {

bool adopt_copy(OpenBlas* blas, const ElfImage& image, const Internals& found, DoorSet doors,
                bool rests_early) {
  static_cast<Internals&>(*blas) = found;
  blas->brief_mutex.store(found.alloc_lock);
  blas->buffers.place();
  blas->team_buffers.place();
  Line kind;
  kind.add("OpenBLAS 0.").add(found.version / 100 % 100).add(".").add(found.version % 100);
  kind.add(found.openmp ? ", OpenMP" : ", own threads");
  blas->module = adopt(image, kind.text(), doors, blas, rests_early);
  if (blas->module == nullptr) return false;
  // Objects that need it were loaded and bound before its constructor runs.
  each_loaded_object([blas](const ElfImage& object) {
    see_beside(blas, object);
    return true;
  });
  return true;
}

void see_beside(OpenBlas* blas, const ElfImage& image) {
  if (image.needs(blas->module->image) && image.imports("blas_memory_alloc")) {
    install_doors_beside(blas->module, blas->doors_beside, image);
  }
}

void tear(OpenBlas* blas, const char* why) {
  blas->set_torn(true);
  ++forksafe_state.modules[blas->module->slot].degraded_forks;
  if (!logging()) return;
  Line line;
  line.add("a child computes with one thread in ").add(blas->module->image.path());
  report(line.add(": ").add(why).text());
}

void rest_allocator(OpenBlas* blas) {
  Module* module = blas->module;
  if (!rest_late(module, &module->gates().brief, module->brief_depth())) {
    tear(blas, "its memory allocator did not come to rest");
  }
}

void shut_down_in_child(OpenBlas* blas) {
  blas->shut = true;
  blas->shutdown();
  give_buffers_back(blas);
  blas->shut = false;
}

void give_buffers_back(OpenBlas* blas) {
  if (blas->memory_free == nullptr) return;
  blas->buffers.each([blas](void* buffer) {
    if (!blas->team_buffers.has(buffer)) blas->memory_free(buffer);
  });
}

void start_to_adapt(OpenBlas* blas) {
  if (thread_share() == 0 || blas->program_chose) return;
  blas->module->adapt = blas->adapt;
  blas->adapt(blas->module);
}

}  // namespace forksafe
