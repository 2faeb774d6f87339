// SPDX-License-Identifier: Apache-2.0
#include "module.h"

#include <cstring>

#include "doors.h"
#include "options.h"
#include "report.h"

namespace forksafe {
namespace {

// glibc's initialisers of default mutexes and conditions are all zero, and so is what
// pthread_mutex_init and pthread_cond_init make of them without attributes. A page is written to
// only where something must change.
template <typename Object>
void reset_object(void* address) {
  static const Object initial = {};
  if (memcmp(address, &initial, sizeof initial) != 0) memcpy(address, &initial, sizeof initial);
}

}  // namespace

ForkPage fork_page;
__thread ThreadState thread_state __attribute__((tls_model("initial-exec")));
Module modules[kMaxModules];
std::atomic<int> module_count{0};

Module* adopt(const ElfImage& image, const char* kind, DoorSet doors,
              void (*prepare_module)(Module* module, const void* context), const void* context) {
  Line line;
  fork_page.adoption_lock.lock();
  const int slot = module_count.load();
  Module* module = nullptr;
  if (slot == kMaxModules) {
    line.add("no room for one more module, left as it is: ").add(image.path());
  } else {
    module = &modules[slot];
    module->slot = slot;
    module->image = image;
    module->doors = doors;
    memset(module->behind, 0, sizeof module->behind);
    prepare_module(module, context);
    if (install_doors(module)) {
      module_count.store(slot + 1);
      forksafe_state.modules[slot].base = image.base();
      line.add("adopted ").add(image.path()).add(": ").add(kind);
    } else {
      line.add("the GOT can't be written, left as it is: ").add(image.path());
      module = nullptr;
    }
  }
  fork_page.adoption_lock.unlock();
  report(line.text());
  return module;
}

int64_t wait_deadline() { return monotonic_ns() + int64_t{options().wait_ms} * 1000000; }

bool rest_brief(Module* module) {
  Gate& gate = module->gates().brief;
  gate.close();
  return *module->brief_depth() != 0 || gate.wait_empty(wait_deadline());
}

void reset_module_in_child(Module* module) {
  module->gates().calls.reset(*module->calls_depth());
  module->gates().brief.reset(*module->brief_depth());
  module->mutexes.each([](void* m) { reset_object<pthread_mutex_t>(m); });
  module->conditions.each([](void* c) { reset_object<pthread_cond_t>(c); });
  module->workers.store(0, std::memory_order_relaxed);
  if (module->adapting.load()) module->adapting.store(false);
}

}  // namespace forksafe

forksafe::State forksafe_state;
