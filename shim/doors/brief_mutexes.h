// SPDX-License-Identifier: Apache-2.0
// Doors for a runtime whose static mutexes are all held for microseconds. A thread is inside the
// brief gate while it holds one, so a fork waits until nobody holds one.
#pragma once

#include <pthread.h>

#include "doors/doors.h"

namespace forksafe {

struct BriefMutexLock {
  static constexpr const char* kName = "pthread_mutex_lock";
  static int call(const Passage<int(pthread_mutex_t*)>& through, pthread_mutex_t* mutex) {
    Module* module = through.module;
    adapt_threads(module);
    note(module, &module->mutexes, mutex);
    if (module->image.writable().contains(mutex)) enter_brief(module);
    return through(mutex);
  }
};

struct BriefMutexUnlock {
  static constexpr const char* kName = "pthread_mutex_unlock";
  static int call(const Passage<int(pthread_mutex_t*)>& through, pthread_mutex_t* mutex) {
    const int result = through(mutex);
    if (through.module->image.writable().contains(mutex)) leave_brief(through.module);
    return result;
  }
};

}  // namespace forksafe
