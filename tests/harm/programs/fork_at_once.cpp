// SPDX-License-Identifier: Apache-2.0
// 50 threads fork at once, again and again, and their children fork again.
#include "harm.h"

namespace {

constexpr int kThreads = 50;
constexpr int kForks = 20;

pthread_barrier_t barrier;

void* fork_at_once(void*) {
  for (int i = 0; i < kForks * harm::times; ++i) {
    pthread_barrier_wait(&barrier);
    harm::fork_chain(i % 4 == 0 ? 2 : 1);
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 3L * kThreads * kForks);
  pthread_barrier_init(&barrier, nullptr, kThreads);
  pthread_atfork([] {}, [] {}, [] {});
  pthread_t threads[kThreads];
  for (pthread_t& thread : threads) thread = harm::start_thread(fork_at_once);
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  harm::say("%d threads forked %d times", kThreads, kForks);
  return 0;
}
