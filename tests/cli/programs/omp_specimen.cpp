// SPDX-License-Identifier: Apache-2.0
// omp_specimen SITUATION [ARGUMENT]: like specimen.cpp, but compiled with OpenMP.
#include <fcntl.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "stay.h"

namespace {

template <typename Work>
[[noreturn]] void with_child(pid_t (*make_child)(), Work work) {
  const pid_t child = make_child();
  if (child == 0) {
    work();
    _exit(0);
  }
  printf("ready %d\n", child);
  fflush(stdout);
  int status = 0;
  waitpid(child, &status, 0);
  printf("the child ended with %d\n", status);
  fflush(stdout);
  _exit(3);
}

pid_t bare_fork() { return static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }

int region(int threads) {
  int count = 0;
#pragma omp parallel num_threads(threads) reduction(+ : count)
  ++count;
  return count;
}

void section(void (*inside)()) {
#pragma omp critical
  inside();
}

std::atomic<bool> is_held{false};

void hold() {
  is_held = true;
  stay();
}

// The child starts a region for 3 threads, and has one thread.
void team() {
  region(3);
  with_child(fork, [] { region(3); });
}

// The same without fork handlers.
void bare_team() {
  region(3);
  with_child(bare_fork, [] { region(3); });
}

// The parent has another thread, which can't be stopped.
void team_beside_vfork() {
  put_thread_in_vfork();
  team();
}

// Switches the handlers of Intel's and LLVM's OpenMP off, as scikit-learn does when it is imported.
void kmp_team() {
  setenv("KMP_INIT_AT_FORK", "FALSE", 0);
  team();
}

// The child uses the runtime, and then forks.
void generations() {
  region(3);
  with_child(fork, [] {
    region(3);
    const pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, nullptr, 0);
  });
}

// Another thread is inside the critical section.
void critical() {
  std::thread([] { section(hold); }).detach();
  while (!is_held) usleep(1000);
  with_child(fork, [] { section([] {}); });
}

// The child's own thread is inside, within a region of one thread or not.
template <bool Region>
void own_critical() {
  region(2);
  with_child(fork, [] {
    std::thread([] { section(hold); }).detach();
    while (!is_held) usleep(1000);
#pragma omp parallel num_threads(1) if (Region)
    section([] {});
  });
}

// Beside a thread that runs code of no file, as a just-in-time compiler makes it.
void team_beside_code() {
#if defined(__x86_64__)
  const uint8_t forever[] = {0xeb, 0xfe};  // jmp to itself
#elif defined(__aarch64__)
  const uint8_t forever[] = {0x00, 0x00, 0x00, 0x14};  // b to itself
#else
  const uint8_t forever[] = {0};
  exit(77);
#endif
  void* const code =
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(code, forever, sizeof forever);
  __builtin___clear_cache(static_cast<char*>(code), static_cast<char*>(code) + sizeof forever);
  region(3);
  with_child(fork, [code] {
    // Not by std::thread, whose frames may be seen behind the code.
    pthread_t thread;
    pthread_create(&thread, nullptr, reinterpret_cast<void* (*)(void*)>(code), nullptr);
    region(3);
  });
}

void lock() {
  static omp_lock_t lock;
  omp_init_lock(&lock);
  std::thread([] {
    omp_set_lock(&lock);
    hold();
  }).detach();
  while (!is_held) usleep(1000);
  with_child(fork, [] { omp_set_lock(&lock); });
}

void nest_lock() {
  static omp_nest_lock_t lock;
  omp_init_nest_lock(&lock);
  std::thread([] {
    omp_set_nest_lock(&lock);
    hold();
  }).detach();
  while (!is_held) usleep(1000);
  with_child(fork, [] { omp_set_nest_lock(&lock); });
}

void named_section(void (*inside)()) {
#pragma omp critical(name)
  inside();
}

void named_critical() {
  std::thread([] { named_section(hold); }).detach();
  while (!is_held) usleep(1000);
  with_child(fork, [] { named_section([] {}); });
}

// The child passes the start of the region, as the team mate was there at the fork, and waits for
// the mate in the body. Eigen's products do that. Like a worker of multiprocessing.Pool it has a
// semaphore in memory shared with the parent.
template <bool Yields>
void spin() {
  const std::string name = "/forksafe-spin-" + std::to_string(getpid());
  if (sem_open(name.c_str(), O_CREAT | O_EXCL, 0600, 0) == SEM_FAILED) abort();
  sem_unlink(name.c_str());
  region(2);
  usleep(200 * 1000);
  with_child(fork, [] {
    static std::atomic<int> arrived{0};
#pragma omp parallel num_threads(2)
    {
      ++arrived;
      while (arrived < 2) {
        if (Yields) sched_yield();
      }
    }
  });
}

// Not stuck: enters empty regions, or critical sections that are free, again and again.
template <int Threads>
void regions() {
  region(2);
  with_child(fork, [] {
    while (region(Threads) == Threads) {
    }
  });
}

void sections() {
  region(2);
  with_child(fork, [] {
    for (;;) section([] {});
  });
}

// Not stuck: computes in a region of one thread, in a loop of few instructions.
void work_in_region() {
  region(2);
  with_child(fork, [] {
    volatile long sum = 0;
#pragma omp parallel num_threads(1)
    for (;;) sum = sum + 1;
  });
}

// Not stuck: waits at the end of a region for its mate, which computes. The parent has no team.
void uneven() {
  with_child(fork, [] {
#pragma omp parallel num_threads(2)
    if (omp_get_thread_num() == 1) {
      volatile long sum = 0;
      for (;;) sum = sum + 1;
    }
  });
}

// Not stuck: waits in a region of one thread for another process.
void flag() {
  auto* const raised = static_cast<std::atomic<bool>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  region(2);
  with_child(fork, [raised] {
#pragma omp parallel num_threads(1)
    while (!*raised) {
    }
  });
}

// crowd N: N children that are stuck like that of team, each beside 7 threads that sleep, and one
// child that sleeps too.
int argument = 0;

void crowd() {
  region(3);
  for (int i = 0; i <= argument; ++i) {
    if (fork() != 0) continue;
    for (int k = 0; k < 7; ++k) std::thread(stay).detach();
    if (i < argument) region(3);
    stay();
  }
  printf("ready %d\n", getpid());
  fflush(stdout);
  stay();
}

constexpr struct {
  const char* name;
  void (*enter)();
} kSituations[] = {
    {"kmp-team", kmp_team},
    {"team", team},
    {"generations", generations},
    {"bare-team", bare_team},
    {"critical", critical},
    {"own-critical", own_critical<false>},
    {"own-critical-in-region", own_critical<true>},
    {"team-beside-code", team_beside_code},
    {"team-beside-vfork", team_beside_vfork},
    {"lock", lock},
    {"nest-lock", nest_lock},
    {"named-critical", named_critical},
    {"regions-1", regions<1>},
    {"regions-2", regions<2>},
    {"sections", sections},
    {"spin", spin<false>},
    {"spin-yield", spin<true>},
    {"work-in-region", work_in_region},
    {"uneven", uneven},
    {"flag", flag},
    {"crowd", crowd},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2) argument = atoi(argv[2]);
  for (const auto& s : kSituations) {
    if (argc >= 2 && strcmp(argv[1], s.name) == 0) s.enter();
  }
  fputs("usage: omp_specimen SITUATION\n", stderr);
  return 2;
}
