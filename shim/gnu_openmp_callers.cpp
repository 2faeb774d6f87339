// SPDX-License-Identifier: Apache-2.0
// libgomp itself says nothing when a region starts: with its team alive it calls no other library.
// So the slots by which other objects call it are led through functions of ours.
//
// How many threads a region has is the program's business. A program that has asked
// omp_get_max_threads may have made an array of so many entries, and a later region must not have
// more threads; nor fewer, if it divides its work by that number. So the number changes only until
// the program has asked for it, and is never more than at the fork:
//
// - a region without a num_threads clause starts: the number becomes this process's share;
// - the program asks for the number: the same, and from then on it stays in this process;
// - a region with a num_threads clause: it has what it asks for;
// - the program has set another number, in that thread: it holds.
//
// Those are the entries that GCC 4.9 to 16 call for a region (libgomp.map, GOMP_4.0 to GOMP_5.0),
// each with the number of threads as its third argument, 0 where there is no clause.
#include "gnu_openmp_callers.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "fork_tree.h"
#include "loaded_objects.h"
#include "module.h"
#include "setters.h"
#include "slots.h"

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

  // Of a child.
  int fresh;      // what a new thread has; 0: nothing adapts in this process
  bool observed;  // the program has asked for the number
};

Watched watched[kMaxOpenMpCopies];
int watched_count = 0;

void adapt(int index) {
  Watched& copy = watched[index];
  if (copy.fresh == 0 || copy.observed || copy.numbers.get_level() > 0) return;
  OpenMpThread& thread = thread_state.openmp[index];
  const int now = copy.numbers.get_max_threads();
  // A thread that was made since the fork.
  if (thread.most == 0) thread.most = thread.given = copy.fresh;
  if (now != thread.given) return;
  const int share = thread_share();
  const int wanted = share < thread.most ? share : thread.most;
  if (wanted == now) return;
  copy.numbers.set_num_threads(wanted);
  thread.given = wanted;
}

// By a number that no thread has.
void set_by_program(int index) {
  if (watched[index].fresh != 0) thread_state.openmp[index] = {UINT16_MAX, UINT16_MAX};
}

template <typename Function>
Function entry(int index, int number) {
  return reinterpret_cast<Function>(watched[index].entries[number]);
}

template <int Index>
int get_max_threads() {
  adapt(Index);
  if (watched[Index].fresh != 0) watched[Index].observed = true;
  return entry<int (*)()>(Index, 0)();
}

// One function for each copy and entry. `More` is what the entry takes behind the number of
// threads.
template <int Index, int Entry, typename Result, typename... More>
Result region(void (*body)(void*), void* data, unsigned threads, More... more) {
  if (threads == 0) adapt(Index);
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
  int index = 0;
  while (index < watched_count && watched[index].base != copy.base()) ++index;
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
  const int index = index_of(copy);
  if (index == kMaxOpenMpCopies) return;
  Watched& own = watched[index];
  if (index == watched_count) {
    own.base = copy.base();
    own.numbers = numbers;
    for (int i = 0; i < kEntryCount; ++i) own.entries[i] = copy.find(kEntries[i]).address;
    for (const char* name : {"omp_set_num_threads", "omp_set_num_threads_"}) {
      watch_setter(copy, copy.find(name), set_by_program, index);
    }
    ++watched_count;
  }
  each_loaded_object([&](const ElfImage& object, size_t, const ElfW(Phdr)*) {
    if (!object.needs(copy)) return true;
    redirect_slots(
        object,
        [](const char* name) { return *name == 'G' || *name == 'o' ? entry_number(name) : -1; },
        [&](int number, void* behind) -> void* {
          if (behind != own.entries[number]) return nullptr;
          return function_of(index, number, std::make_integer_sequence<int, kMaxOpenMpCopies>());
        });
    return true;
  });
}

void start_to_adapt_callers(const ElfImage& copy, int fresh, int now) {
  const int index = index_of(copy);
  if (index == watched_count) return;
  watched[index].fresh = fresh;
  watched[index].observed = false;
  thread_state.openmp[index] = {static_cast<uint16_t>(now), static_cast<uint16_t>(now)};
}

}  // namespace forksafe
