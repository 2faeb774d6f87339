// SPDX-License-Identifier: Apache-2.0
#include "doors/module.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstring>

#include "options.h"
#include "signals.h"

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

int64_t wait_deadline() { return monotonic_ns() + wait_ns(); }

void rest_early(Module* module, Gate* gate, const uint8_t* depth) {
  if (*depth != 0 || !this_thread_rests()) return;
  gate->shut();
  if (!gate->wait_empty(wait_deadline())) thread_state.outlived |= module->bit();
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
  return gate->wait_empty(outlived ? 0 : wait_deadline());
}

void set_child_torn(bool torn) {
  if (child_torn != torn) child_torn = torn;
}

bool reset_module_in_child(Module* module) {
  module->gates().calls.reset(*module->calls_depth());
  module->gates().brief.reset(*module->brief_depth());
  module->mutexes.each([](void* m) { reset_object<pthread_mutex_t>(m); });
  module->conditions.each([](void* c) { reset_object<pthread_cond_t>(c); });
  if (module->adapting.load() != 0) module->adapting.store(0);
  return !child_torn && module->slot < thread_state.modules;
}

}  // namespace forksafe

forksafe::State forksafe_state;
