// SPDX-License-Identifier: Apache-2.0
// A prepare, a parent or a child handler forks, once for each fork. Handlers that do not fork run
// before it and after it. Every second inner child returns from the handler and finishes the outer
// fork.
//
// Modes: alone (the program has one thread), threads (it has two).
#include <initializer_list>

#include "harm.h"

namespace {

constexpr int kForks = 100;

enum Kind { kPrepare, kParent, kChild, kNone };
Kind forking = kNone;  // the kind of handler that forks
pid_t program;
bool inside = false;
int round_number = 0;
bool inner_child = false;
std::atomic<long>* inner_forks;

void fork_in(Kind kind) {
  if (kind != forking || inside) return;
  inside = true;
  const pid_t child = harm::bounded_fork();
  if (child == 0) {
    harm::watch(30);
    if (round_number % 2 == 0) _exit(0);
    inner_child = true;  // inside stays: the outer fork's handlers go on
    return;
  }
  ++*inner_forks;
  harm::reap_well(child);
  inside = false;
}

std::atomic<int> prepared{0}, continued{0};

void* wait_for_ever(void*) {
  for (;;) pause();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "threads") == 0) harm::need_handlers_without_lock();
  harm::begin(argc, argv, 60, 50L * kForks);
  program = getpid();
  inner_forks = new (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
      std::atomic<long>(0);
  pthread_atfork([] { ++prepared; }, [] { ++continued; }, [] {});
  pthread_atfork([] { fork_in(kPrepare); }, [] { fork_in(kParent); }, [] { fork_in(kChild); });
  pthread_atfork([] { ++prepared; }, [] { ++continued; }, [] {});
  if (harm::mode_is("threads")) harm::start_thread(wait_for_ever);
  const char* const names[] = {"prepare", "parent", "child"};
  for (const Kind kind : {kPrepare, kParent, kChild}) {
    forking = kind;
    *inner_forks = 0;
    for (round_number = 0; round_number < kForks * harm::times; ++round_number) {
      const pid_t child = harm::bounded_fork();
      // The child of the outer fork, or an inner child that has finished that fork.
      if (child == 0 || getpid() != program) {
        int status = 0;
        // A child that was forked in a parent handler returns from fork() with the id of the outer
        // fork's child, which is not its own child.
        if (child > 0) waitpid(child, &status, 0);
        harm::expect(status == 0, "the child of an inner child");
        inside = true;
        harm::fork_once();
        _exit(0);
      }
      harm::reap_well(child);
    }
    harm::expect(*inner_forks >= kForks * harm::times, "the handler forked each time");
    harm::expect(prepared == continued, "each prepare handler has its parent handler");
    harm::say("%d forks whose %s handler forks ended well", kForks, names[kind]);
  }
  _exit(0);
}
