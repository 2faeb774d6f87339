// SPDX-License-Identifier: Apache-2.0
// A prepare handler waits until another thread of its library has finished its work. That thread
// registers fork handlers, loads a library or forks before it has finished.
//
// Modes: register, load, fork.
#include <semaphore.h>

#include "harm.h"
#include "plugin.h"

namespace {

constexpr int kForks = 200;

sem_t wanted;
sem_t done;
pthread_t main_thread;

void* worker(void*) {
  for (;;) {
    while (sem_wait(&wanted) != 0) {
    }
    if (harm::mode_is("register")) pthread_atfork([] {}, [] {}, [] {});
    if (harm::mode_is("load")) dlclose(harm::load("plugin_a"));
    if (harm::mode_is("fork")) harm::fork_chain(2);
    sem_post(&done);
  }
}

void prepare() {
  if (!pthread_equal(pthread_self(), main_thread)) return;
  sem_post(&wanted);
  while (sem_wait(&done) != 0) {
  }
}

}  // namespace

void in_plugin_constructor(RegisterForkHandlers register_handlers) {
  register_handlers([] {}, [] {}, [] {});
}
void in_plugin_destructor() {}

int main(int argc, char** argv) {
  harm::need_handlers_without_lock();
  harm::begin(argc, argv, 60, 20L * kForks);
  sem_init(&wanted, 0, 0);
  sem_init(&done, 0, 0);
  main_thread = pthread_self();
  harm::start_thread(worker);
  pthread_atfork([] {}, [] {}, [] {});
  pthread_atfork(prepare, nullptr, nullptr);
  pthread_atfork([] {}, [] {}, [] {});
  for (int i = 0; i < kForks * harm::times; ++i) {
    const pid_t child = harm::bounded_fork();
    if (child == 0) _exit(0);
    harm::reap_well(child);
  }
  harm::say("%d forks whose handler waits ended well", kForks);
  _exit(0);  // the worker goes on
}
