// SPDX-License-Identifier: Apache-2.0
// libpool, an imaginary runtime (docs/adding-a-runtime.md).
//
// At most two threads compute at a time: a call takes a place from a counter, pool_free, under a
// static mutex, and gives it back. A fork leaves a child two ways to wait for ever:
//
// - the mutex was held by a thread that the child does not have;
// - pool_free lacks the places of such threads.
//
// The fork waits until all calls have given their places back (the calls gate), and until nobody
// holds the mutex (the brief gate). The child sets pool_free anew where a call took longer than a
// fork waits.
#include "doors/brief_mutexes.h"
#include "elf/loaded_objects.h"
#include "runtimes/copies.h"
#include "runtimes/runtime.h"

namespace forksafe {
namespace {

struct Copy {
  Module* module;
  int* free;   // pool_free
  int places;  // what it starts with
};

Copies<Copy, kMaxModules> copies;

// ---- doors ----

struct Take {
  static constexpr const char* kName = "pool_take";
  static void call(const Passage<void()>& through) {
    enter_calls(through.module);
    through();
  }
};

struct Give {
  static constexpr const char* kName = "pool_give";
  static void call(const Passage<void()>& through) {
    through();
    leave_calls(through.module);
  }
};

using Doors = DoorList<BriefMutexLock, BriefMutexUnlock, Take, Give>;

// ---- how a copy is found ----

ElfImage candidates[kMaxModules];
int candidate_count = 0;

void see(const ElfImage& image) {
  if (image.find("pool_free").address == nullptr || is_adopted(image)) return;
  if (candidate_count < kMaxModules) candidates[candidate_count++] = image;
}

void seen_all() {
  for (int i = 0; i < candidate_count; ++i) {
    const ElfImage& image = candidates[i];
    if (!is_its_turn(image) || !pin(image) || !has_room_for(image)) continue;
    Copy* copy = copies.next();
    copy->free = static_cast<int*>(image.find("pool_free").address);
    copy->places = *copy->free;
    copy->module = adopt(image, "the pool", Doors::all(), copy, true);
    if (copy->module != nullptr) copies.add();
  }
  candidate_count = 0;
}

// ---- around a fork ----

void prepare_first() {
  copies.each([](Copy* copy) {
    rest_early(copy->module, &copy->module->gates().calls, copy->module->calls_depth());
  });
}

void prepare_last() {
  copies.each([](Copy* copy) {
    Module* module = copy->module;
    rest_late(module, &module->gates().calls, module->calls_depth());
    rest_late(module, &module->gates().brief, module->brief_depth());
  });
}

void parent() {
  copies.each([](Copy* copy) {
    copy->module->gates().brief.open();
    copy->module->gates().calls.open();
  });
}

void child_first() {
  copies.each([](Copy* copy) {
    reset_module_in_child(copy->module);
    if (*copy->free != copy->places) *copy->free = copy->places;
  });
}

}  // namespace

const Runtime pool = {
    "the pool", see, seen_all, prepare_first, prepare_last, parent, child_first, nullptr,
};

}  // namespace forksafe
