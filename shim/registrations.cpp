// SPDX-License-Identifier: Apache-2.0
#include "registrations.h"

#include <atomic>

#include "elf/loaded_objects.h"

namespace forksafe {
namespace {

// A slot that a thread of the parent was writing at the fork stays so in the child.
struct Slot {
  enum State { kFree, kBeingWritten, kWritten };
  std::atomic<int> state{kFree};
  uint32_t generation = 0;  // of the process in which it was registered
  Registration registration = {};
};
constexpr int kMostSlots = 64;
Slot slots[kMostSlots];

bool operator==(const Registration& a, const Registration& b) {
  return a.prepare == b.prepare && a.parent == b.parent && a.child == b.child &&
         a.object == b.object;
}

}  // namespace

bool is_inherited(const Registration& registration) {
  for (const Slot& slot : slots) {
    if (slot.state.load(std::memory_order_acquire) == Slot::kWritten &&
        slot.generation != process_generation() && slot.registration == registration) {
      return true;
    }
  }
  return false;
}

void remember(const Registration& registration) {
  for (Slot& slot : slots) {
    int free = Slot::kFree;
    if (!slot.state.compare_exchange_strong(free, Slot::kBeingWritten)) continue;
    slot.generation = process_generation();
    slot.registration = registration;
    slot.state.store(Slot::kWritten, std::memory_order_release);
    return;
  }
}

void forget_registrations_in(const ElfImage& image) {
  for (Slot& slot : slots) {
    if (slot.state.load(std::memory_order_acquire) == Slot::kWritten &&
        image.span().contains(slot.registration.object)) {
      slot.state.store(Slot::kFree, std::memory_order_release);
    }
  }
}

}  // namespace forksafe
