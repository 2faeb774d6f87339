// SPDX-License-Identifier: Apache-2.0
// An adopted module: an object whose calls to libc, OpenMP and itself come through our doors.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "doors/gate.h"
#include "elf/image.h"
#include "lease.h"
#include "pages.h"
#include "state.h"

namespace forksafe {

/// A set of addresses. Any thread may add to it, and none are removed.
class AddressSet {
 public:
  static constexpr size_t kCapacity = 1024;

  /// Gives the set its memory. To be called before anything is added, in an adoption. It is no
  /// static memory, because a process that adopts nothing is not to be charged for it.
  void place();

  /// False when the set is full, or has no memory.
  bool insert(const void* address) {
    if (slots_ == nullptr) return false;
    const auto value = reinterpret_cast<uintptr_t>(address);
    // Mutexes and conditions are aligned to 8 bytes at least. The upper bits of the product depend
    // on all other bits of the address.
    size_t i = static_cast<size_t>((uint64_t{value >> 3} * 0x9e3779b97f4a7c15ULL) >> 54);
    for (size_t probes = 0; probes < kCapacity; ++probes, i = (i + 1) % kCapacity) {
      uintptr_t seen = slots_[i].load(std::memory_order_acquire);
      if (seen == 0) {
        // Counted first: whoever sees a member must not see an empty set.
        size_.fetch_add(1, std::memory_order_relaxed);
        if (slots_[i].compare_exchange_strong(seen, value)) {
          // What the caller does next, such as locking a mutex, must not be seen before the member:
          // a lock orders only what comes after it.
          std::atomic_thread_fence(std::memory_order_seq_cst);
          return true;
        }
        size_.fetch_sub(1, std::memory_order_relaxed);
      }
      if (seen == value) return true;
    }
    return false;
  }

  template <typename Visit>
  void each(Visit visit) const {
    if (size_.load(std::memory_order_relaxed) == 0) return;
    for (size_t i = 0; i < kCapacity; ++i) {
      const uintptr_t value = slots_[i].load(std::memory_order_relaxed);
      if (value != 0) visit(reinterpret_cast<void*>(value));
    }
  }

  bool has(const void* address) const {
    bool found = false;
    each([&](const void* member) { found = found || member == address; });
    return found;
  }

  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  static_assert(kCapacity == 1U << (64 - 54), "insert() takes the product's upper 10 bits");
  std::atomic<size_t> size_{0};
  std::atomic<uintptr_t>* slots_ = nullptr;
};

/// One door of a runtime, as DoorList (doors/doors.h) makes it.
struct Door {
  const char* name;                 ///< of the import that it stands before
  void* (*function_for)(int slot);  ///< what stands in the GOT of the module in that slot
};

/// A set of doors of one runtime's list. A door is known by its index there.
class DoorSet {
 public:
  static constexpr size_t kCapacity = 16;

  constexpr DoorSet() = default;
  /// All `count` of them.
  constexpr DoorSet(const Door* list, size_t count) : list_(list), bits_((1U << count) - 1) {}

  constexpr DoorSet without(size_t index) const {
    DoorSet result = *this;
    result.bits_ &= ~(1U << index);
    return result;
  }
  constexpr bool has(size_t index) const { return (bits_ >> index & 1U) != 0; }
  /// The index of the door before `name`, or -1.
  int find(const char* name) const;
  void* function(int index, int slot) const { return list_[index].function_for(slot); }

 private:
  const Door* list_ = nullptr;
  uint32_t bits_ = 0;
};

/// The gates of a module. Whole computations pass `calls`. Critical sections of microseconds, such
/// as the memory allocator's, pass `brief`.
struct Gates {
  Gate calls;
  Gate brief;
};

/// All that is written to around every fork, in a page of its own. The kernel wipes that page in a
/// child (MADV_WIPEONFORK, Linux 4.14) and does not share it, so the parent's first write to it
/// after a fork is no copy-on-write fault. Older kernels copy the page, and the child resets what
/// it finds. Nothing else may lie in the page. docs/locks.md says who may hold what.
struct alignas(kLargestPage) ForkPage {
  Gates gates[kMaxModules];
  /// The right to lend and shut gates before other libraries' prepare handlers run.
  Lease rest;
  /// The right to hold gates, from the last prepare handler to the first parent handler.
  Lease hold;
};
extern ForkPage fork_page;

/// What the library keeps for each thread.
struct ThreadState {
  uint8_t calls_depth[kMaxModules];
  uint8_t brief_depth[kMaxModules];
  uint32_t outlived;       ///< bit N: calls of module N have outlived the fork's first wait
  uint32_t revoked_holds;  ///< at the head's prepare
  uint32_t forks_within;   ///< how many forks of signal handlers are under way within this one
  uint8_t modules;         ///< how many there were at the head's prepare
  bool at_head;            ///< between the head's prepare and its parent or child
  bool in_fork;            ///< between our steps before and after glibc's fork
  bool in_new_child;       ///< in a child that has not yet taken the last of our steps
  uint32_t generation;     ///< of how many forks the thread has been the child
};
static_assert(kMaxModules <= 32, "a module is a bit of ThreadState");
extern __thread ThreadState thread_state __attribute__((tls_model("initial-exec")));

/// The calling thread, as leases know it.
inline uintptr_t this_thread() { return reinterpret_cast<uintptr_t>(&thread_state); }

/// The fields that every module has. A runtime keeps its own fields in a record of its own.
struct Module {
  int slot = 0;
  ElfImage image;
  /// The function that each door leads to; null where the module does not import it.
  void* behind[DoorSet::kCapacity] = {};
  /// The runtime's own record of the module.
  void* copy = nullptr;

  /// A thread inside one of its gates may need what other libraries' prepare handlers lock.
  bool rests_early = false;

  /// Statically allocated mutexes and conditions that it was seen to use.
  AddressSet mutexes;
  AddressSet conditions;
  /// Set when one of its sets was full, here or in `copy`: the child then can't reset everything.
  std::atomic<bool> overflowed{false};

  /// In a child under FORKSAFE_CHILD_THREADS=auto: brings the number of threads that the module
  /// computes with to this process's share (sharing/fork_tree.h), and returns it. Called at the
  /// doors that a computation passes on its way in. Null where the number stays as it is.
  std::atomic<int (*)(Module* module)> adapt{nullptr};  ///< any thread may set it to null
  /// 1: a thread is in `adapt`, where that must be one at a time. A whole word: GCC before 14
  /// leaves the exchange of a byte to libatomic on RISC-V.
  std::atomic<uint32_t> adapting{0};

  Gates& gates() const { return fork_page.gates[slot]; }
  uint8_t* calls_depth() const { return &thread_state.calls_depth[slot]; }
  uint8_t* brief_depth() const { return &thread_state.brief_depth[slot]; }
  uint32_t bit() const { return 1U << static_cast<unsigned>(slot); }
};

/// The adopted modules, `module_count` of them, in the order of their adoption. The last one may
/// not be ready yet: a runtime walks the list of its own copies instead.
extern Module modules[kMaxModules];
extern std::atomic<int> module_count;

/// Whether that object is a module.
inline bool is_adopted(const ElfImage& image) {
  return has_image(modules, module_count.load(), image);
}

/// Whether a runtime was found in this process: a module, or a copy of GNU OpenMP.
extern std::atomic<bool> anything_adopted;

/// Sets `anything_adopted`. The first time, it also has the kernel wipe `fork_page` in children: a
/// program without a runtime makes no system call for us, which a sandbox might kill it for.
void note_adoption();

bool any_module_rests_early();

/// How long a fork may wait: FORKSAFE_WAIT_MS.
int64_t wait_ns();

/// Waits until nobody is inside, and lends the gate. It must come before other libraries' prepare
/// handlers, because a handler may take a lock that a thread inside still needs: another allocator
/// locks its arenas, LLVM's OpenMP its fork/join lock (kmp_runtime.cpp, __kmp_atfork_prepare). Does
/// nothing where the calling thread is inside, or where another thread's fork rests the gates.
void rest_early(Module* module, Gate* gate, const uint8_t* depth);

/// For a fork that ends before its last steps: nobody needs to wait at the gates that it has lent.
void take_gates_back();

/// How long a newcomer waits for a fork that has shut or holds the gates: twice what the fork
/// itself may wait, so that the fork gives up first.
int64_t newcomer_patience_ns();

/// How often the right to hold the gates was taken away from a fork. Such a fork may not have made
/// its child yet; the child finds another number than its parent noted, and is torn.
extern Atomic<uint32_t> revoked_holds;

/// One attempt to get the right to hold the gates. Signals must be blocked: the caller gives the
/// right back, or goes away with it, before anything else can run in this thread.
bool try_take_hold(Lease::Patience* patience);

/// For a newcomer that has waited for its patience at a held gate: opens all gates, if the fork
/// that holds them is in foreign code. It may have left for good.
void open_gates_left_behind();

/// After other libraries' prepare handlers, with the right to hold gates: holds the gate and waits
/// until nobody is inside, but perhaps this thread. False when that took longer than a fork may
/// wait, here or before.
bool rest_late(Module* module, Gate* gate, const uint8_t* depth);

/// Whether the calling thread's fork rests the gates. It passes those that are lent or shut, since
/// its handlers may compute; one that is held was closed by another fork.
inline bool this_thread_rests() { return fork_page.rest.held_by(this_thread()); }

/// Whether the calling thread's fork holds the gates: a signal handler has interrupted it, and
/// computes.
inline bool this_thread_holds() {
  return thread_state.at_head && fork_page.hold.held_by(this_thread());
}

/// In a child, first of all: whether other threads may have been inside of gates at the fork.
void set_child_torn(bool torn);

/// In a child: no thread is inside the module but perhaps this one, its static mutexes are free
/// and nobody waits for its conditions. False where set_child_torn(true) was called, and
/// for a module that came after the head's prepare: nothing has kept calls out of it.
bool reset_module_in_child(Module* module);

}  // namespace forksafe
