// SPDX-License-Identifier: Apache-2.0
// fork() on a small stack: in a signal handler on an alternate stack of 8 kB, as crash handlers do,
// and in threads with PTHREAD_STACK_MIN. The page below each stack can't be touched. The children
// fork again, on the same stack.
//
// Modes: alternate, thread.
#include <limits.h>
#include <sys/auxv.h>

#include "harm.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

namespace {

constexpr int kForks = 200;
constexpr size_t kSmall = 8192;
constexpr size_t kUsualFrame = 4096;  // what the kernel needs for a signal, at most

void on_signal(int) {
  if (!harm::fork_twice(harm::bounded_fork)) _exit(3);
}

void* in_thread(void*) {
  on_signal(0);
  return nullptr;
}

void fork_on_alternate_stacks() {
  // On processors with large registers, the frame of a signal is larger.
  const size_t frame = getauxval(AT_MINSIGSTKSZ);
  const size_t size =
      kSmall + (frame > kUsualFrame ? (frame - kUsualFrame + 4095) / 4096 * 4096 : 0);
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* pages =
      mmap(nullptr, page + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  harm::expect(pages != MAP_FAILED, "mmap");
  mprotect(pages, page, PROT_NONE);
  stack_t stack = {};
  stack.ss_sp = static_cast<char*>(pages) + page;
  stack.ss_size = size;
  harm::expect(sigaltstack(&stack, nullptr) == 0, "sigaltstack");
  harm::on_signal(SIGUSR1, on_signal, SA_ONSTACK);
  for (int i = 0; i < kForks * harm::times; ++i) raise(SIGUSR1);
}

void fork_in_small_threads() {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  const long least = sysconf(_SC_THREAD_STACK_MIN);
  const size_t size =
      least > 0 ? static_cast<size_t>(least) : static_cast<size_t>(PTHREAD_STACK_MIN);
  harm::expect(pthread_attr_setstacksize(&attributes, size) == 0, "pthread_attr_setstacksize");
  for (int i = 0; i < kForks * harm::times; ++i) {
    pthread_t threads[2];
    for (pthread_t& thread : threads) {
      harm::expect(pthread_create(&thread, &attributes, in_thread, nullptr) == 0, "pthread_create");
    }
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  }
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 10L * kForks);
  if (harm::mode_is("alternate")) {
    fork_on_alternate_stacks();
  } else {
    fork_in_small_threads();
  }
  harm::say("%d times, the stack was large enough", kForks);
  return 0;
}
