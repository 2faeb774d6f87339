// SPDX-License-Identifier: Apache-2.0
// Another library of LD_PRELOAD. It defines fork and __register_atfork as forksafe's does, counts
// the calls, and passes them on with RTLD_NEXT. Its dlopen holds a lock. See interposed.cpp.
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

extern "C" {

int interposer_forks = 0;
int interposer_registrations = 0;
void* interposer_counts_handler = nullptr;  // only registrations of this handler are counted

pid_t fork() {
  using Fork = pid_t (*)();
  static const auto next = reinterpret_cast<Fork>(dlsym(RTLD_NEXT, "fork"));
  ++interposer_forks;
  return next();
}

int __register_atfork(void (*prepare)(), void (*parent)(), void (*child)(), void* dso) {
  using Register = int (*)(void (*)(), void (*)(), void (*)(), void*);
  static const auto next = reinterpret_cast<Register>(dlsym(RTLD_NEXT, "__register_atfork"));
  if (reinterpret_cast<void*>(prepare) == interposer_counts_handler) ++interposer_registrations;
  return next(prepare, parent, child, dso);
}

void* dlopen(const char* path, int flags) noexcept {
  using Dlopen = void* (*)(const char*, int);
  static const auto next = reinterpret_cast<Dlopen>(dlsym(RTLD_NEXT, "dlopen"));
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&lock);
  void* library = next(path, flags);
  pthread_mutex_unlock(&lock);
  return library;
}
}
