// SPDX-License-Identifier: Apache-2.0
// A thread ends inside a prepare handler: it is cancelled at a cancellation point there, or
// asynchronously, or calls pthread_exit. The frames of fork() and of its caller are unwound, and
// later forks of all other threads work as before.
//
// Modes: deferred, asynchronous, exit.
#include "harm.h"

namespace {

constexpr int kRounds = 100;

thread_local bool end_here = false;
thread_local int volatile spin;
pthread_key_t key;
std::atomic<int> ended{0};
char result_of_exit;
std::atomic<bool> stop{false};

void prepare() {
  if (!end_here) return;
  if (harm::mode_is("exit")) pthread_exit(&result_of_exit);
  if (harm::mode_is("asynchronous")) {
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
    pthread_cancel(pthread_self());
    for (;;) spin = spin + 1;
  }
  pthread_cancel(pthread_self());
  pthread_testcancel();
  harm::fail("the cancellation point in the handler did nothing");
}

void* end_in_handler(void*) {
  pthread_setspecific(key, &key);
  end_here = true;
  harm::bounded_fork();
  harm::fail("fork() returned though its thread has ended");
}

void* fork_until_stopped(void*) {
  while (!stop) harm::fork_once();
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  harm::need_handlers_without_lock();
  harm::begin(argc, argv, 60, 100000);
  pthread_key_create(&key, [](void*) {
    ++ended;
    end_here = false;
    if (ended % 2 == 0) harm::fork_once();  // the thread itself, too, still forks
  });
  pthread_atfork([] {}, [] {}, [] {});
  pthread_atfork(prepare, nullptr, nullptr);
  pthread_atfork([] {}, [] {}, [] {});
  const pthread_t beside = harm::start_thread(fork_until_stopped);
  for (int i = 0; i < kRounds * harm::times; ++i) {
    void* result = nullptr;
    pthread_join(harm::start_thread(end_in_handler), &result);
    harm::expect(result == (harm::mode_is("exit") ? &result_of_exit : PTHREAD_CANCELED),
                 "how the thread ended");
    harm::fork_chain(2);
  }
  stop = true;
  pthread_join(beside, nullptr);
  harm::expect(ended == kRounds * harm::times, "each thread's destructors ran");
  harm::say("%d threads ended in a handler, and the others still fork", kRounds);
  return 0;
}
