// SPDX-License-Identifier: Apache-2.0
#include "doors/doors.h"

#include <cstring>

#include "elf/slots.h"
#include "report.h"

namespace forksafe {
namespace {

template <typename Accept>
bool install(Module* module, DoorSet doors, const ElfImage& object, Accept accept) {
  return redirect_slots(
      object, [doors](const char* name) { return doors.find(name); },
      [&](int index, void* behind) -> void* {
        return accept(index, behind) ? doors.function(index, module->slot) : nullptr;
      });
}

}  // namespace

int DoorSet::find(const char* name) const {
  for (size_t i = 0; i < kCapacity; ++i) {
    if (has(i) && strcmp(name, list_[i].name) == 0) return static_cast<int>(i);
  }
  return -1;
}

void wait_at_gate(Gate* gate) {
  while (!gate->wait_outside(newcomer_patience_ns())) open_gates_left_behind();
}

bool has_room_for(const ElfImage& image) {
  if (module_count.load() < kMaxModules) return true;
  Line line;
  report(line.add("no room for one more module, left as it is: ").add(image.path()).text());
  return false;
}

Module* adopt(const ElfImage& image, const char* kind, DoorSet doors, void* copy,
              bool rests_early) {
  if (!has_room_for(image)) return nullptr;
  Line line;
  const int slot = module_count.load();
  // An adoption runs in a constructor, where the dynamic linker's lock keeps others out.
  Module* module = &modules[slot];
  module->slot = slot;
  module->image = image;
  module->copy = copy;
  module->rests_early = rests_early;
  module->mutexes.place();
  module->conditions.place();
  memset(module->behind, 0, sizeof module->behind);
  module_count.store(slot + 1);
  // Who jumps through a slot has read it by a plain load, with which no store of ours can pair. It
  // needs none: a thread gets at the module's functions by way of the linker, or of the constructor
  // that runs now, and so after all that is written here.
  const bool installed = install(module, doors, image, [module](int index, void* behind) {
    module->behind[index] = behind;
    return true;
  });
  if (!installed) {
    module_count.store(slot);
    line.add("the GOT can't be written, left as it is: ").add(image.path());
    report(line.text());
    return nullptr;
  }
  note_adoption();
  forksafe_state.modules[slot].base = image.base();
  line.add("adopted ").add(image.path()).add(": ").add(kind);
  report(line.text());
  return module;
}

bool install_doors_beside(Module* module, DoorSet doors, const ElfImage& object) {
  return install(module, doors, object,
                 [module](int index, void* behind) { return behind == module->behind[index]; });
}

}  // namespace forksafe
