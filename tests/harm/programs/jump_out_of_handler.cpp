// SPDX-License-Identifier: Apache-2.0
// A prepare handler never returns: it gives up and jumps out of fork() with siglongjmp. Later forks
// of the same thread, of other threads and of children work as before.
//
// Modes: alone (one thread jumps, then there are more), threads (others fork meanwhile).
#include <setjmp.h>

#include "harm.h"

namespace {

constexpr int kForks = 200;

thread_local sigjmp_buf out;
thread_local bool jump = false;
thread_local int prepared = 0;

void prepare() {
  ++prepared;
  if (!jump) return;
  jump = false;
  siglongjmp(out, 1);
}

void fork_and_jump() {
  if (sigsetjmp(out, 1) == 0) {
    jump = true;
    harm::bounded_fork();
    harm::fail("fork() returned though its handler jumped");
  }
}

void* fork_in_thread(void*) {
  harm::fork_once();
  return nullptr;
}

// Before glibc 2.36 a jump is safe as long as the program has one thread.
const bool safe_with_threads = harm::glibc_at_least(36);

void* jump_then_fork(void*) {
  for (int i = 0; i < kForks * harm::times; ++i) {
    fork_and_jump();
    if (i % 3 == 0) fork_and_jump();
    // Other threads fork first. This thread has never finished the fork that it jumped out of.
    if (i % 2 == 0 && safe_with_threads) pthread_join(harm::start_thread(fork_in_thread), nullptr);
    const int before = prepared;
    harm::fork_chain(2);
    harm::expect(prepared == before + 1, "the prepare handler ran once");
  }
  return nullptr;
}

void* only_fork(void*) {
  for (int i = 0; i < kForks * harm::times; ++i) harm::fork_once();
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "threads") == 0) harm::need_handlers_without_lock();
  harm::begin(argc, argv, 60, 20L * kForks);
  pthread_atfork([] {}, [] {}, [] {});
  pthread_atfork(prepare, nullptr, nullptr);
  if (harm::mode_is("alone")) jump_then_fork(nullptr);
  void* (*const first)(void*) = harm::mode_is("alone") ? only_fork : jump_then_fork;
  const pthread_t threads[] = {harm::start_thread(first), harm::start_thread(only_fork),
                               harm::start_thread(only_fork)};
  harm::fork_chain(3);
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  harm::fork_chain(3);
  harm::say("%d forks after a jump ended well", kForks);
  return 0;
}
