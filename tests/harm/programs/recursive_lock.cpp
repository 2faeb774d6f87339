// SPDX-License-Identifier: Apache-2.0
// A library has a recursive lock, which its prepare handler takes. One thread forks while it holds
// that lock, another thread forks without it. The second has begun a fork and waits for the lock,
// so the first must not wait for that fork.
#include "harm.h"

namespace {

constexpr int kForks = 1000;

pthread_mutex_t lock;

void set_up_lock() {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&lock, &attributes);
}

void* fork_with_lock(void*) {
  for (int i = 0; i < kForks * harm::times; ++i) {
    pthread_mutex_lock(&lock);
    harm::pause_us(i % 200);
    harm::fork_once();
    pthread_mutex_unlock(&lock);
  }
  return nullptr;
}

void* fork_without_lock(void*) {
  for (int i = 0; i < kForks * harm::times; ++i) {
    harm::fork_once();
    harm::pause_us(i % 50);
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  harm::need_handlers_without_lock();
  harm::begin(argc, argv, 60, 3L * kForks);
  set_up_lock();
  pthread_atfork([] { pthread_mutex_lock(&lock); }, [] { pthread_mutex_unlock(&lock); },
                 set_up_lock);
  const pthread_t with = harm::start_thread(fork_with_lock);
  const pthread_t without = harm::start_thread(fork_without_lock);
  pthread_join(with, nullptr);
  pthread_join(without, nullptr);
  harm::say("%d forks with the lock held and %d without ended well", kForks, kForks);
  return 0;
}
