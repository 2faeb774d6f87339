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
Slot slots[256];

// Where an OpenMP lies that exports its names, as nearly all do. Empty: end is 0.
struct Place {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};

  bool contains(const void* address) const {
    const auto a = reinterpret_cast<uintptr_t>(address);
    return a < end.load(std::memory_order_acquire) && a >= begin.load(std::memory_order_relaxed);
  }
};
constexpr int kMostPlaces = 8;
Place places[kMostPlaces];

// Whether a function belongs to LLVM's or Intel's OpenMP. One that is linked into something else
// without exporting its names is known by the variable that it reads: a search of some 0.2 ms.
bool is_of_openmp(const void* function) {
  for (const Place& place : places) {
    if (place.contains(function)) return true;
  }
  ElfImage image;
  return find_object_by_header(function, &image) && image.holds("KMP_INIT_AT_FORK");
}

bool operator==(const Registration& a, const Registration& b) {
  return a.prepare == b.prepare && a.parent == b.parent && a.child == b.child &&
         a.object == b.object;
}

}  // namespace

bool is_inherited(const Registration& registration) {
  for (const Slot& slot : slots) {
    if (slot.state.load(std::memory_order_acquire) != Slot::kWritten ||
        slot.generation == process_generation() || !(slot.registration == registration)) {
      continue;
    }
    return is_of_openmp(reinterpret_cast<const void*>(registration.prepare));
  }
  return false;
}

void remember(const Registration& registration) {
  // OpenMP has all three.
  if (registration.prepare == nullptr || registration.parent == nullptr ||
      registration.child == nullptr) {
    return;
  }
  for (Slot& slot : slots) {
    int free = Slot::kFree;
    if (!slot.state.compare_exchange_strong(free, Slot::kBeingWritten)) continue;
    slot.generation = process_generation();
    slot.registration = registration;
    slot.state.store(Slot::kWritten, std::memory_order_release);
    return;
  }
}

void see_loaded(const ElfImage& image) {
  const Range span = image.span();
  for (Slot& slot : slots) {
    if (slot.state.load(std::memory_order_acquire) == Slot::kWritten &&
        span.contains(slot.registration.object)) {
      slot.state.store(Slot::kFree, std::memory_order_release);
    }
  }
  for (Place& place : places) {
    if (place.begin.load() < span.end && span.begin < place.end.load()) place.end.store(0);
  }
  if (image.find("__kmpc_fork_call").address == nullptr) return;
  for (Place& place : places) {
    if (place.end.load() != 0) continue;
    place.begin.store(span.begin);
    place.end.store(span.end);
    return;
  }
}

}  // namespace forksafe
