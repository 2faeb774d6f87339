// SPDX-License-Identifier: Apache-2.0
#include "doors/module.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstring>

#include "options.h"
#include "signals.h"

namespace forksafe {
namespace {

// A page is written to only where something must change.
template <typename Object>
void reset_to(const Object& initial, Object* object) {
  if (memcmp(object, &initial, sizeof initial) != 0) memcpy(object, &initial, sizeof initial);
}

// A mutex that is free is all zero but for its kind. OpenBLAS and BLIS have default mutexes alone,
// but may be linked into an object with others, as recursive ones.
void reset_mutex(pthread_mutex_t* mutex) {
  pthread_mutex_t initial = {};
  initial.__data.__kind = mutex->__data.__kind;
  reset_to(initial, mutex);
}

// A default condition for which nobody waits is all zero. The bits of others, as their clock, are
// in another place from glibc 2.41 on, so they can't be kept.
void reset_condition(pthread_cond_t* condition) {
  static const pthread_cond_t initial = {};
  reset_to(initial, condition);
}

template <typename Step>
void each_gate(Step step) {
  const int count = module_count.load();
  for (int i = 0; i < count; ++i) {
    step(&fork_page.gates[i].calls);
    step(&fork_page.gates[i].brief);
  }
}

bool child_torn = false;

}  // namespace

void AddressSet::place() {
  // One mapping for the sets of all modules, because each mapping costs every fork some time.
  constexpr size_t kSets = size_t{5} * kMaxModules;
  static std::atomic<uintptr_t>* next = nullptr;
  static size_t left = 0;
  if (slots_ != nullptr) return;
  if (left == 0) {
    const KeepErrno keep;
    void* memory = mmap(nullptr, kSets * kCapacity * sizeof *slots_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return;
    next = static_cast<std::atomic<uintptr_t>*>(memory);
    left = kSets;
  }
  slots_ = next;
  next += kCapacity;
  --left;
}

ForkPage fork_page;
Atomic<uint32_t> revoked_holds{0};
__thread ThreadState thread_state __attribute__((tls_model("initial-exec")));
Module modules[kMaxModules];
std::atomic<int> module_count{0};
std::atomic<bool> anything_adopted{false};

void note_adoption() {
  if (anything_adopted.load()) return;
  // May fail before Linux 4.14; then the page is copied like any other. It is copied, too, where a
  // page is larger than we know: other variables would be wiped with it.
  const KeepErrno keep;
  const auto begin = reinterpret_cast<uintptr_t>(&fork_page);
  if (is_whole_pages(begin, sizeof fork_page, page_size())) {
    madvise(&fork_page, sizeof fork_page, MADV_WIPEONFORK);
  }
  anything_adopted.store(true);
}

bool any_module_rests_early() {
  const int count = module_count.load();
  for (int i = 0; i < count; ++i) {
    if (modules[i].rests_early) return true;
  }
  return false;
}

int64_t wait_ns() { return int64_t{options().wait_ms} * 1000000; }

void rest_early(Module* module, Gate* gate, const uint8_t* depth) {
  if (*depth != 0 || !this_thread_rests()) return;
  gate->shut();
  if (!gate->wait_empty(wait_ns())) thread_state.outlived |= module->bit();
  gate->lend();
}

void take_gates_back() {
  each_gate([](Gate* gate) { gate->take_back(); });
}

int64_t newcomer_patience_ns() { return 2 * wait_ns() + 100000000; }

bool try_take_hold(Lease::Patience* patience) {
  if (!fork_page.hold.try_take(this_thread(), patience)) return false;
  if (!patience->revoked) return true;
  // The old holder may be in the kernel, which copies one page of its memory after the other while
  // other threads run. It holds the lock of the memory map from the first page to the last. Past
  // pass_memory_map(), either the copy is complete, or its child will see the new number.
  revoked_holds.fetch_add(1);
  pass_memory_map(&fork_page);
  return true;
}

void open_gates_left_behind() {
  const uint64_t mask = block_signals();
  Lease::Patience patience = {0};
  if (try_take_hold(&patience)) {
    each_gate([](Gate* gate) { gate->open(); });
    fork_page.hold.give_back(this_thread());
  }
  restore_signals(mask);
}

bool rest_late(Module* module, Gate* gate, const uint8_t* depth) {
  gate->hold();
  if (*depth != 0) return true;
  const bool outlived = (thread_state.outlived & module->bit()) != 0;
  return gate->wait_empty(outlived ? 0 : wait_ns());
}

void set_child_torn(bool torn) {
  if (child_torn != torn) child_torn = torn;
}

bool reset_module_in_child(Module* module) {
  module->gates().calls.reset(*module->calls_depth());
  module->gates().brief.reset(*module->brief_depth());
  module->mutexes.each([](void* m) { reset_mutex(static_cast<pthread_mutex_t*>(m)); });
  module->conditions.each([](void* c) { reset_condition(static_cast<pthread_cond_t*>(c)); });
  if (module->adapting.load() != 0) module->adapting.store(0);
  return !child_torn && module->slot < thread_state.modules;
}

}  // namespace forksafe

forksafe::State forksafe_state;
