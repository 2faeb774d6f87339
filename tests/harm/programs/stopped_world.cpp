// SPDX-License-Identifier: Apache-2.0
// A thread stops all others by a signal, as garbage collectors do, and waits until each has
// answered. Some of them fork, and some are stopped while they hold malloc's lock, for which forks
// wait. Usage: stopped_world [LIBRARY to load first]
#include <malloc.h>
#include <semaphore.h>

#include "harm.h"

namespace {

constexpr int kStops = 2000;
constexpr int kPatience = 20;  // seconds that a thread may take to answer
constexpr int kForking = 2, kAllocating = 2, kThreads = kForking + kAllocating;

sem_t answered;
std::atomic<int> round{0};  // odd: the world is stopped
std::atomic<bool> over{false};

void on_stop(int) {
  const int error = errno;
  const int stopped = round.load();
  sem_post(&answered);
  while (round.load() == stopped) harm::pause_us(10);
  errno = error;
}

void* allocate(void*) {
  while (!over.load()) {
    void* blocks[20];
    for (size_t i = 0; i < 20; ++i) blocks[i] = malloc(5000 + 700 * i);  // past the thread's cache
    for (void* block : blocks) free(block);
  }
  return nullptr;
}

void* fork_on(void*) {
  while (!over.load()) harm::fork_once();
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 120, 100L * kStops);
  if (*harm::mode != '\0' && dlopen(harm::mode, RTLD_NOW) == nullptr) harm::skip(dlerror());
  mallopt(M_ARENA_MAX, 1);  // one lock for all threads
  sem_init(&answered, 0, 0);
  harm::on_signal(SIGUSR2, on_stop);
  pthread_t threads[kThreads];
  for (int i = 0; i < kThreads; ++i) {
    threads[i] = harm::start_thread(i < kForking ? fork_on : allocate);
  }
  for (int stop = 0; stop < kStops * harm::times; ++stop) {
    round.fetch_add(1);
    for (const pthread_t thread : threads) pthread_kill(thread, SIGUSR2);
    timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += kPatience;
    for (int i = 0; i < kThreads; ++i) {
      while (sem_timedwait(&answered, &end) != 0) {
        harm::expect(errno == EINTR, "a thread did not answer the signal that stops it");
      }
    }
    round.fetch_add(1);
    harm::pause_us(50);
  }
  over.store(true);
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  harm::say("%d stops of all threads ended well", kStops);
}
