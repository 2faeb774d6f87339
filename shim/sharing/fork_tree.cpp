// SPDX-License-Identifier: Apache-2.0
// Children know of each other by the kernel's account of their CPU time (clock_getcpuclockid). So
// no child has to report that it has finished, and a child that was killed leaves nothing behind.
// This needs no descriptor, no signal and no thread.
#include "sharing/fork_tree.h"

#include <strings.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

#include "futex.h"
#include "sharing/processors.h"

namespace forksafe {
namespace {

struct Child {
  static constexpr int kFree = 0;
  // Stored first: if the process is killed a moment later, its place can be freed. Until the
  // process has stored the rest, the rest is that of an earlier one.
  std::atomic<int> pid;
  std::atomic<int64_t> busy_ms;  // when it was last seen to compute
  std::atomic<int64_t> cpu_ns;   // its CPU time at the last look
};

// Processes share these, so no lock of libatomic's may stand in for the instructions.
static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "atomics in shared memory");

// Any process of the tree can write here, also by mistake. So what is read is taken for a hint: it
// bounds no loop and no index by itself, and a share is between 1 and the number of processors.
//
// The kernel's zeros are its initial state. A child that finds no free place is not counted: with
// that many children each has one thread anyway.
struct Tree {
  static constexpr int kCapacity = 1000;
  std::atomic<uint32_t> computing;  // how many children do
  std::atomic<int64_t> looked_ms;
  std::atomic<int> used;  // no place behind these was ever taken
  Child children[kCapacity];
};

Tree* tree = nullptr;
int tree_processors = 1;  // for all of it together
bool runtime_binds = false;

// Of this process.
bool in_child = false;
enum : uint32_t { kOutside, kEntering, kInside };
std::atomic<uint32_t> place{kOutside};
Child* own = nullptr;  // valid when place is kInside; null where there was no room
std::atomic<int> own_processors{0};
std::atomic<int64_t> own_processors_ms{0};

// A clock that is read in some nanoseconds, and moves every 1 to 10 ms (CONFIG_HZ).
int64_t now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return int64_t{t.tv_sec} * 1000 + t.tv_nsec / 1000000;
}

// What has passed since `then`, which may be any number: it is read from the shared page.
int64_t since(int64_t then, int64_t now) {
  return static_cast<int64_t>(static_cast<uint64_t>(now) - static_cast<uint64_t>(then));
}

// The CPU time of a process, or -1 where there is no such process.
int64_t cpu_ns(int pid) {
  const KeepErrno keep;
  clockid_t clock;
  timespec t;
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0) return -1;
  return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

template <typename Visit>
void each_child(Visit visit) {
  const int used = tree->used.load();
  for (int i = 0; i < used && i < Tree::kCapacity; ++i) {
    const int pid = tree->children[i].pid.load();
    if (pid > 0) visit(&tree->children[i], pid);
  }
}

void free_place(Child* child, int pid) { child->pid.compare_exchange_strong(pid, Child::kFree); }

// One process at a time looks: the one that has moved looked_ms.
void look(int64_t now, int64_t before) {
  uint32_t computing = 0;
  each_child([&](Child* child, int pid) {
    const int64_t cpu = cpu_ns(pid);
    if (cpu < 0) {
      free_place(child, pid);
      return;
    }
    const auto used_ns = static_cast<double>(since(child->cpu_ns.exchange(cpu), cpu));
    if (used_ns * 8 >= static_cast<double>(since(before, now)) * 1e6) child->busy_ms.store(now);
    if (since(child->busy_ms.load(), now) < kIdleMs) ++computing;
  });
  tree->computing.store(computing);
}

// False if the last look was less than kLookMs ago, or if another process looks.
bool look_if_due(int64_t now) {
  int64_t before = tree->looked_ms.load(std::memory_order_relaxed);
  if (since(before, now) < kLookMs || !tree->looked_ms.compare_exchange_strong(before, now))
    return false;
  look(now, before);
  return true;
}

Child* take_place(int pid) {
  for (int i = 0; i < Tree::kCapacity; ++i) {
    int expected = Child::kFree;
    if (!tree->children[i].pid.compare_exchange_strong(expected, pid)) continue;
    int used = tree->used.load();
    while (used <= i && !tree->used.compare_exchange_weak(used, i + 1)) {
    }
    return &tree->children[i];
  }
  return nullptr;
}

// Counts the children that compute, and frees the places of those that have ended. Without this, a
// sibling that has just ended would make a child's first share too small, and GNU OpenMP's regions
// get their number from the first share alone.
void recount(int64_t now) {
  uint32_t computing = 0;
  each_child([&](Child* child, int pid) {
    if (cpu_ns(pid) < 0) {
      free_place(child, pid);
    } else if (since(child->busy_ms.load(), now) < kIdleMs) {
      ++computing;
    }
  });
  tree->computing.store(computing);
}

// Makes an entry for this process, as one that computes.
void enter(int64_t now) {
  const int pid = getpid();
  // An earlier process with the same number may still have an entry.
  each_child([pid](Child* child, int other) {
    if (other == pid) free_place(child, pid);
  });
  own = take_place(pid);
  if (own == nullptr) {
    look(now, tree->looked_ms.load());  // frees the places of processes that have ended
    own = take_place(pid);
  }
  if (own == nullptr) return;
  own->busy_ms.store(now);
  own->cpu_ns.store(cpu_ns(pid));
  if (!look_if_due(now)) recount(now);
}

// Done at once, not at the next look, so that the siblings' next calls know it.
void compute_again(int64_t now) {
  const int64_t idle_ms = since(own->busy_ms.load(std::memory_order_relaxed), now);
  if (idle_ms < kIdleMs / 2 || own->busy_ms.exchange(now) == now) return;
  if (idle_ms >= kIdleMs) tree->computing.fetch_add(1);
}

// A program may pin its workers, so this is read as often as the siblings are looked at. But if the
// OpenMP runtime binds threads, a thread's processors are those of its place, and say nothing.
int find_own_processors(int64_t now) {
  if (runtime_binds) return tree_processors;
  if (own_processors.load() == 0 || now - own_processors_ms.load() >= kLookMs) {
    own_processors_ms.store(now);
    own_processors.store(affinity_processors());
  }
  return own_processors.load();
}

// Whether the environment makes GNU OpenMP bind its threads (libgomp's env.c, GCC 4.9 to 16).
bool asks_to_bind() {
  const char* bind = getenv("OMP_PROC_BIND");
  if (bind != nullptr) return strcasecmp(bind, "false") != 0;
  return getenv("OMP_PLACES") != nullptr || getenv("GOMP_CPU_AFFINITY") != nullptr;
}

}  // namespace

void start_fork_tree() {
  const KeepErrno keep;
  void* pages =
      mmap(nullptr, sizeof(Tree), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (pages != MAP_FAILED) tree = static_cast<Tree*>(pages);
  tree_processors = affinity_processors();
  const int quota = quota_processors();
  if (quota != 0 && quota < tree_processors) tree_processors = quota;
  runtime_binds = asks_to_bind();
}

void enter_fork_tree() {
  if (tree == nullptr) return;
  in_child = true;
  own_processors.store(0);
  place.store(kOutside);
}

int thread_share() {
  if (!in_child) return 0;
  const int64_t now = now_ms();
  uint32_t expected = kOutside;
  if (place.load(std::memory_order_acquire) == kOutside &&
      place.compare_exchange_strong(expected, kEntering)) {
    enter(now);
    place.store(kInside, std::memory_order_release);
  }
  if (place.load(std::memory_order_acquire) == kInside && own != nullptr) compute_again(now);
  look_if_due(now);
  const uint32_t computing = tree->computing.load(std::memory_order_relaxed);
  int share = tree_processors / static_cast<int>(computing > 1 ? computing : 1);
  const int most = find_own_processors(now);
  if (share > most) share = most;
  return share > 1 ? share : 1;
}

}  // namespace forksafe
