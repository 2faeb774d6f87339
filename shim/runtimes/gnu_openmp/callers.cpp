// SPDX-License-Identifier: Apache-2.0
// libgomp calls no other library when it starts a region with a team that is alive, so no door of
// its own can see that. Instead, other objects call libgomp through functions of ours in their
// slots.
//
// The number of threads of a region may matter to the program: it may have an array with an entry
// for each thread, or may have divided its work by the number. So a process gets its number once,
// before it can have seen another one:
//
// - FORKSAFE_CHILD_THREADS=N: every thread of a child starts with N.
// - auto: the first region or question of a child decides. The number is the child's share at that
//   moment, and never more than the thread has. It then holds for all threads of the child and of
//   its children. If the program has started a region or asked before the fork, it keeps the number
//   that it knows.
// - A region with a num_threads clause has what it asks for.
// - A number that the program sets holds in that thread.
//
// kEntries has the functions that code of GCC 4.9 to 16 calls for a region (libgomp.map, GOMP_4.0
// to GOMP_5.0). Each has the number of threads as its third argument, 0 if there is no clause.
#include "runtimes/gnu_openmp/callers.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <utility>

#include "doors/setters.h"
#include "elf/loaded_objects.h"
#include "elf/slots.h"
#include "options.h"
#include "runtimes/openblas/internals.h"
#include "sharing/fork_tree.h"

namespace forksafe {
namespace {

constexpr const char* kEntries[] = {
    "omp_get_max_threads",
    "GOMP_parallel",
    "GOMP_parallel_reductions",
    "GOMP_parallel_sections",
    "GOMP_parallel_loop_static",
    "GOMP_parallel_loop_dynamic",
    "GOMP_parallel_loop_guided",
    "GOMP_parallel_loop_runtime",
    "GOMP_parallel_loop_nonmonotonic_dynamic",
    "GOMP_parallel_loop_nonmonotonic_guided",
    "GOMP_parallel_loop_nonmonotonic_runtime",
    "GOMP_parallel_loop_maybe_nonmonotonic_runtime",
};
constexpr int kEntryCount = sizeof kEntries / sizeof *kEntries;

struct Watched {
  uintptr_t base;  // of the copy
  ThreadNumbers numbers;
  void* entries[kEntryCount];  // the copy's own functions

  std::atomic<bool> seen;   // the program has started a region or asked, here or in an ancestor
  std::atomic<int> number;  // the number that a child's threads start with; 0: as without us
  int fresh;                // in a child: the number that a new thread has by itself
};

Watched watched[kMaxOpenMpCopies] = {};
std::atomic<int> watched_count{0};

// What each thread of a child knows of its number of threads in a copy.
struct OwnNumber {
  uint16_t inherited;  // the number that the forking thread had; 0 in a thread that was made since
  bool settled;        // the thread has the child's number, or one that the program has set
};
__thread OwnNumber own_numbers[kMaxOpenMpCopies] __attribute__((tls_model("initial-exec")));

// Decides the number of an `auto` child, unless that was done or the program knows a number
// already.
void decide(Watched* copy, int now) {
  // Who sees that it was decided must see the number.
  if (options().child_threads != Options::kAuto || copy->seen.load(std::memory_order_acquire)) {
    return;
  }
  const int share = thread_share();
  int undecided = 0;
  if (share != 0) copy->number.compare_exchange_strong(undecided, share < now ? share : now);
  copy->seen.store(true);
}

// Called when a thread is about to start a region without a num_threads clause, or asks for the
// number.
void settle(int index) {
  Watched& copy = watched[index];
  OwnNumber& thread = own_numbers[index];
  if (thread.settled && copy.seen.load(std::memory_order_relaxed)) return;
  if (copy.numbers.get_level() > 0) return;
  const int now = copy.numbers.get_max_threads();
  decide(&copy, now);
  const int number = copy.number.load(std::memory_order_relaxed);
  if (thread.settled || number == 0) return;
  const int before = thread.inherited != 0 ? thread.inherited : copy.fresh;
  thread.settled = true;
  // If the number is not the one that the thread began with, a runtime call has set it that we have
  // not seen.
  if (now == before && now != number) copy.numbers.set_num_threads(number);
}

void set_by_program(int index) { own_numbers[index].settled = true; }

template <typename Function>
Function entry(int index, int number) {
  return reinterpret_cast<Function>(watched[index].entries[number]);
}

template <int Index>
int get_max_threads() {
  settle(Index);
  return entry<int (*)()>(Index, 0)();
}

// One function for each copy and entry. `More` are the parameters behind the number of threads.
template <int Index, int Entry, typename Result, typename... More>
Result region(void (*body)(void*), void* data, unsigned threads, More... more) {
  if (threads == 0) settle(Index);
  using Function = Result (*)(void (*)(void*), void*, unsigned, More...);
  return entry<Function>(Index, Entry)(body, data, threads, more...);
}

// In the order of kEntries.
template <int Index>
void* function_of(int number) {
  using L = long;
  using U = unsigned;
  void* const functions[kEntryCount] = {
      reinterpret_cast<void*>(get_max_threads<Index>),
      reinterpret_cast<void*>(region<Index, 1, void, U>),
      reinterpret_cast<void*>(region<Index, 2, U, U>),
      reinterpret_cast<void*>(region<Index, 3, void, U, U>),
      reinterpret_cast<void*>(region<Index, 4, void, L, L, L, L, U>),
      reinterpret_cast<void*>(region<Index, 5, void, L, L, L, L, U>),
      reinterpret_cast<void*>(region<Index, 6, void, L, L, L, L, U>),
      reinterpret_cast<void*>(region<Index, 7, void, L, L, L, U>),
      reinterpret_cast<void*>(region<Index, 8, void, L, L, L, L, U>),
      reinterpret_cast<void*>(region<Index, 9, void, L, L, L, L, U>),
      reinterpret_cast<void*>(region<Index, 10, void, L, L, L, U>),
      reinterpret_cast<void*>(region<Index, 11, void, L, L, L, U>),
  };
  return functions[number];
}

template <int... Indexes>
void* function_of(int index, int number, std::integer_sequence<int, Indexes...>) {
  void* result = nullptr;
  ((index == Indexes ? void(result = function_of<Indexes>(number)) : void()), ...);
  return result;
}

int index_of(const ElfImage& copy) {
  const int count = watched_count.load(std::memory_order_acquire);
  int index = 0;
  while (index < count && watched[index].base != copy.base()) ++index;
  return index;
}

int entry_number(const char* name) {
  for (int i = 0; i < kEntryCount; ++i) {
    if (strcmp(name, kEntries[i]) == 0) return i;
  }
  return -1;
}

}  // namespace

void watch_callers(const ElfImage& copy, const ThreadNumbers& numbers) {
  const int index = watched_count.load();
  if (index == kMaxOpenMpCopies) return;
  Watched& own = watched[index];
  own.base = copy.base();
  own.numbers = numbers;
  for (int i = 0; i < kEntryCount; ++i) own.entries[i] = copy.find(kEntries[i]).address;
  for (const char* name : {"omp_set_num_threads", "omp_set_num_threads_"}) {
    watch_setter(copy, copy.find(name), set_by_program, index);
  }
  watched_count.store(index + 1, std::memory_order_release);
  each_loaded_object([&](const ElfImage& object) {
    watch_caller(copy, object);
    return true;
  });
}

void watch_caller(const ElfImage& copy, const ElfImage& object) {
  const int index = index_of(copy);
  if (index == watched_count.load() || !object.needs(copy)) return;
  // An OpenBLAS asks in each call, and the library at each fork. It adapts by itself, with the
  // libraries beside it (openblas/openmp.cpp), and its questions are not the program's.
  if (options().child_threads == Options::kAuto &&
      (is_openblas(object) || object.imports("blas_memory_alloc"))) {
    return;
  }
  redirect_slots(
      object,
      [](const char* name) { return *name == 'G' || *name == 'o' ? entry_number(name) : -1; },
      [&](int number, void* behind) -> void* {
        if (behind != watched[index].entries[number]) return nullptr;
        return function_of(index, number, std::make_integer_sequence<int, kMaxOpenMpCopies>());
      });
}

void start_child_threads(const ElfImage& copy, int fresh) {
  const int index = index_of(copy);
  if (index == watched_count.load()) return;
  Watched& own = watched[index];
  own.fresh = fresh;
  OwnNumber& thread = own_numbers[index];
  const int wanted = options().child_threads;
  if (wanted > 0) {
    own.number.store(wanted);
    thread.settled = true;
  } else if (own.number.load() == 0) {
    thread = {static_cast<uint16_t>(own.numbers.get_max_threads()), false};
  }
}

}  // namespace forksafe
