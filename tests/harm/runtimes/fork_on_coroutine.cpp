// SPDX-License-Identifier: Apache-2.0
// A fork on the stack of a coroutine. Above that stack is the heap, as some allocators map it, and
// above the heap are the thread's own stack or its thread-local storage. So pointers to the heap
// look like pointers to the stack. The child starts a region.
//
//   fork_on_coroutine first|other
//
// The coroutine runs in the first thread of the program, or in another one.
#include <omp.h>
#include <pthread.h>
#include <ucontext.h>

#include <cstring>

#include "libc_malloc.h"
#include "program.h"

namespace {

using namespace harm;

constexpr size_t kStack = 256 << 10;
constexpr size_t kHeap = 1 << 20;

thread_local char own_storage;

// The heap. Memory that is freed is not used again.
char* heap = nullptr;
std::atomic<size_t> heap_used{0};

bool in_heap(const void* memory) {
  const auto* address = static_cast<const char*>(memory);
  return heap != nullptr && address >= heap && address < heap + kHeap;
}

// Null if the heap does not exist yet or is full. Fresh memory is zero.
void* take(size_t size) {
  if (heap == nullptr) return nullptr;
  const size_t begin = heap_used.fetch_add((size + 63) & ~size_t{63});
  return begin + size <= kHeap ? heap + begin : nullptr;
}

// Maps the coroutine's stack and the heap in one piece, below the thread's own storage and not far
// from it.
char* map_stack_and_heap() {
  const auto storage = reinterpret_cast<uintptr_t>(&own_storage);
  for (uintptr_t distance = 12 << 20; distance < (60 << 20); distance += 4 << 20) {
    void* wanted = reinterpret_cast<void*>((storage - distance) & ~uintptr_t{0xffff});
    void* memory =
        mmap(wanted, kStack + kHeap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == wanted) return static_cast<char*>(memory);
    if (memory != MAP_FAILED) munmap(memory, kStack + kHeap);
  }
  finish(77, "the memory below the thread's own storage is taken");
}

ucontext_t outside;
ucontext_t coroutine;

void fork_and_compute() {
  const pid_t child = fork();
  if (child == 0) _exit(members() == 2 ? 0 : 1);
  require_success(child, 10, "the child");
}

void* run(void*) {
  char* const stack = map_stack_and_heap();
  heap = stack + kStack;
  if (members() != 2) finish(2, "the parent has no two threads");
  getcontext(&coroutine);
  coroutine.uc_stack.ss_sp = stack;
  coroutine.uc_stack.ss_size = kStack;
  coroutine.uc_link = &outside;
  makecontext(&coroutine, fork_and_compute, 0);
  swapcontext(&outside, &coroutine);
  return nullptr;
}

}  // namespace

extern "C" {
void* malloc(size_t size) {
  void* memory = take(size);
  return memory != nullptr ? memory : __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  void* memory = size == 0 || count <= kHeap / size ? take(count * size) : nullptr;
  return memory != nullptr ? memory : __libc_calloc(count, size);
}
void free(void* memory) {
  if (!in_heap(memory)) __libc_free(memory);
}
void* realloc(void* memory, size_t size) {
  if (!in_heap(memory)) return __libc_realloc(memory, size);
  const auto most = static_cast<size_t>(heap + kHeap - static_cast<char*>(memory));
  void* larger = malloc(size);
  if (larger != nullptr) memcpy(larger, memory, size < most ? size : most);
  return larger;
}
}

int main(int argc, char** argv) {
  const char* who = argc == 2 ? argv[1] : "";
  limit_processor_time(60);
  if (strcmp(who, "first") == 0) {
    run(nullptr);
  } else if (strcmp(who, "other") == 0) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 4 << 20);
    pthread_t thread;
    if (pthread_create(&thread, &small, run, nullptr) != 0) finish(2, "no thread");
    pthread_join(thread, nullptr);
  } else {
    finish(2, "usage: fork_on_coroutine first|other");
  }
  _exit(0);
}
