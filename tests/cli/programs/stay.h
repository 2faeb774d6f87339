// SPDX-License-Identifier: Apache-2.0
// How the specimens stay in a situation.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <thread>

[[noreturn]] inline void stay() {
  for (;;) pause();
}

/// The calling thread stays in vfork, where it can't be stopped.
inline void stay_in_vfork() {
  if (vfork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    stay();
  }
}

/// When this returns, another thread stays in vfork.
inline void put_thread_in_vfork() {
  std::thread(stay_in_vfork).detach();
  usleep(100000);  // by then the thread is in vfork
}
