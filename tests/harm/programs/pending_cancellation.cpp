// SPDX-License-Identifier: Apache-2.0
// A thread with a cancellation request calls fork(), which is no cancellation point: the fork is
// made, the child forks again, and the thread ends at its next cancellation point. Then other
// threads fork.
//
// With the argument libgomp.so.1 the program loads GNU OpenMP first, so the library has something
// to log.
#include "harm.h"

namespace {

constexpr int kRounds = 100;

char forked;  // a thread stores its address when it has come back from fork()

void* fork_when_cancelled(void* result) {
  pthread_cancel(pthread_self());
  const pid_t child = harm::bounded_fork();
  if (child == 0) {
    const pid_t grandchild = harm::bounded_fork();
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    if (grandchild == 0) _exit(0);
    harm::reap_well(grandchild);
    _exit(0);
  }
  int state = -1;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  harm::expect(state == PTHREAD_CANCEL_ENABLE, "cancellation is enabled after fork()");
  harm::reap_well(child);
  *static_cast<void**>(result) = &forked;
  pthread_setcancelstate(state, nullptr);
  pthread_testcancel();
  return nullptr;
}

void* fork_as_usual(void*) {
  harm::fork_once();
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 10L * kRounds);
  if (harm::mode_is("libgomp.so.1")) harm::load_gnu_openmp();
  for (int i = 0; i < kRounds * harm::times; ++i) {
    void* seen = nullptr;
    void* result = nullptr;
    pthread_join(harm::start_thread(fork_when_cancelled, &seen), &result);
    harm::expect(seen == &forked, "the thread was cancelled inside fork()");
    harm::expect(result == PTHREAD_CANCELED, "the request was lost");
    harm::fork_once();
    pthread_join(harm::start_thread(fork_as_usual), nullptr);
  }
  harm::say("%d threads with a request forked", kRounds);
  return 0;
}
