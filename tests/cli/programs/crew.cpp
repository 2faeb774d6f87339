// SPDX-License-Identifier: Apache-2.0
// libcrew: a library with a thread pool that no tool knows, like those of Rust's and C++'s
// packages. It does nothing at a fork, unless it is told to.
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include <ctime>

namespace {

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t work_is_there = PTHREAD_COND_INITIALIZER;
pthread_cond_t work_is_done = PTHREAD_COND_INITIALIZER;
int waiting = 0;  // parts of the work that nobody has taken
int at_work = 0;
useconds_t length = 0;

void* worker(void*) {
  pthread_mutex_lock(&mutex);
  for (;;) {
    while (waiting == 0) pthread_cond_wait(&work_is_there, &mutex);
    --waiting;
    ++at_work;
    pthread_mutex_unlock(&mutex);
    usleep(length);
    pthread_mutex_lock(&mutex);
    --at_work;
    pthread_cond_signal(&work_is_done);
  }
}

pthread_mutex_t handlers_mutex = PTHREAD_MUTEX_INITIALIZER;
void lock_and_unlock() {
  pthread_mutex_lock(&handlers_mutex);
  pthread_mutex_unlock(&handlers_mutex);
}
// It jumps to the C library's function: it leaves no frame on the stack.
__attribute__((optimize("O2"))) void jump_in_child() { pthread_mutex_lock(&handlers_mutex); }

}  // namespace

extern "C" {

void crew_start(int workers) {
  for (int i = 0; i < workers; ++i) {
    pthread_t thread;
    pthread_create(&thread, nullptr, worker, nullptr);
    pthread_detach(thread);
  }
}

/// In a child: forgets the workers of the parent, for which pthread_cond_broadcast may wait.
void crew_forget() {
  work_is_there = PTHREAD_COND_INITIALIZER;
  work_is_done = PTHREAD_COND_INITIALIZER;
}

/// Lets the workers do as many parts of work, which take so long each, and waits for their end.
void crew_work(int parts, useconds_t microseconds) {
  pthread_mutex_lock(&mutex);
  length = microseconds;
  waiting += parts;
  pthread_cond_broadcast(&work_is_there);
  while (waiting + at_work > 0) pthread_cond_wait(&work_is_done, &mutex);
  pthread_mutex_unlock(&mutex);
}

/// The same, but looks every 0.1 s for something else, as JAX does for signals.
void crew_work_and_look(int parts, useconds_t microseconds) {
  pthread_mutex_lock(&mutex);
  length = microseconds;
  waiting += parts;
  pthread_cond_broadcast(&work_is_there);
  while (waiting + at_work > 0) {
    timespec end = {};
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_nsec += 100 * 1000 * 1000;
    if (end.tv_nsec >= 1000 * 1000 * 1000) ++end.tv_sec, end.tv_nsec -= 1000 * 1000 * 1000;
    pthread_cond_timedwait(&work_is_done, &mutex, &end);
  }
  pthread_mutex_unlock(&mutex);
}

/// Forks after a moment, in which other threads take what the caller has let go.
pid_t crew_fork() {
  usleep(100 * 1000);
  return fork();
}

/// Waits for somebody who posts the semaphore.
void crew_wait(sem_t* semaphore) {
  while (sem_wait(semaphore) != 0) {
  }
}

/// For a signal handler.
void crew_stay(int) {
  for (;;) pause();
}

/// This thread takes a mutex that a fork handler takes in the child.
void crew_lock_handler(bool by_jump) {
  pthread_atfork(nullptr, nullptr, by_jump ? jump_in_child : lock_and_unlock);
  pthread_mutex_lock(&handlers_mutex);
}

/// The same, for a handler that runs before the fork.
void crew_lock_before_fork() {
  pthread_atfork(lock_and_unlock, nullptr, nullptr);
  pthread_mutex_lock(&handlers_mutex);
}
}
