// SPDX-License-Identifier: Apache-2.0
// A program with parallel regions of its own that forks: omp_forker SITUATION FORKS [LIBGOMP...]
// Each LIBGOMP is the path of a further copy of GNU OpenMP, as Python wheels have them.
//
// It prints a dot for each child that got the right result. FORKSAFE_TEST_MOST_FORKS is the most
// times that it forks. FORKSAFE_TEST_LATE is a limit (limits.h) that it sets before the first fork.
// Exit status 0: all results are right.
#include <dlfcn.h>
#include <omp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "limits.h"

namespace {

constexpr int kThreads = 3;

[[noreturn]] void fail(const std::string& message) {
  fprintf(stderr, "%s\n", message.c_str());
  _exit(1);
}

// Returns whether a region has a team of `threads` threads and computes the right sum.
bool team_works(int threads) {
  long total = 0;
  int team = 0;
#pragma omp parallel reduction(+ : total)
  {
#pragma omp single
    team = omp_get_num_threads();
#pragma omp for
    for (int i = 0; i < 1000; ++i) total += i;
  }
  return team == threads && total == 499500;
}

void fork_many(int forks, const std::function<bool()>& in_child) {
  limits::set_late();
  for (int i = 0; i < forks; ++i) {
    const pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) _exit(in_child() ? 0 : 3);
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) {
      fail("a child ended with wait status " + std::to_string(status));
    }
    if (write(STDOUT_FILENO, ".", 1) != 1) fail("write");
  }
}

// Another copy of GNU OpenMP, called through GOMP_parallel as compiled code does.
class Copy {
 public:
  explicit Copy(const char* path) : library_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) fail(dlerror());
    parallel_ = reinterpret_cast<Parallel>(dlsym(library_, "GOMP_parallel"));
    if (parallel_ == nullptr) fail("no GOMP_parallel");
  }
  bool works() const {
    std::atomic<int> members{0};
    parallel_([](void* data) { ++*static_cast<std::atomic<int>*>(data); }, &members, kThreads, 0);
    return members == kThreads;
  }

 private:
  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  void* library_;
  Parallel parallel_;
};

#if __GNUC__ < 11
// The libgomp of GCC before 11 has no allocators.
using omp_allocator_handle_t = int;
constexpr int omp_large_cap_mem_alloc = 2;
int omp_get_default_allocator() { return 0; }
void omp_set_default_allocator(int) {}
#endif

struct Variables {
  int threads = omp_get_max_threads();
  int dynamic = omp_get_dynamic();
  int levels = omp_get_max_active_levels();
  int device = omp_get_default_device();
  omp_allocator_handle_t allocator = omp_get_default_allocator();
  omp_sched_t kind;
  int chunk;
  Variables() { omp_get_schedule(&kind, &chunk); }
  bool operator==(const Variables& o) const {
    return threads == o.threads && dynamic == o.dynamic && levels == o.levels &&
           device == o.device && allocator == o.allocator && kind == o.kind && chunk == o.chunk;
  }
};

void idle(int forks) {
  omp_set_num_threads(kThreads);
  if (!team_works(kThreads)) fail("parent");
  fork_many(forks, [] { return team_works(kThreads) && team_works(kThreads); });
  if (!team_works(kThreads)) fail("parent, after");
}

// Each child forks the next one.
void generations(int forks) {
  omp_set_num_threads(kThreads);
  if (!team_works(kThreads)) fail("a region");
  if (forks == 0) return;
  fork_many(1, [forks] {
    generations(forks - 1);
    return true;
  });
  if (!team_works(kThreads)) fail("a region of a parent");
}

void variables(int forks) {
  omp_set_num_threads(kThreads + 2);
  omp_set_dynamic(0);
  omp_set_schedule(omp_sched_guided, 17);
  omp_set_max_active_levels(2);
  omp_set_default_device(omp_get_initial_device());
  omp_set_default_allocator(omp_large_cap_mem_alloc);
  if (!team_works(kThreads + 2)) fail("parent");
  const Variables before;
  fork_many(forks, [&] { return Variables() == before && team_works(kThreads + 2); });
  if (!(Variables() == before)) fail("the parent's variables changed");
}

// Two threads have a pool each, with another number of threads. One of them forks.
void thread_with_pool(int forks) {
  omp_set_num_threads(2);
  if (!team_works(2)) fail("parent");
  std::thread([&] {
    omp_set_num_threads(4);
    if (!team_works(4)) fail("thread");
    fork_many(forks, [] { return team_works(4); });
    if (!team_works(4)) fail("thread, after");
  }).join();
  if (!team_works(2)) fail("parent, after");
}

// Forks while other threads are inside parallel regions and critical sections.
void in_flight(int forks) {
  omp_set_num_threads(2);
  if (!team_works(2)) fail("parent");
  std::atomic<bool> stop{false};
  long counter = 0;
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i) {
    others.emplace_back([&] {
      while (!stop.load()) {
#pragma omp parallel num_threads(2)
        {
#pragma omp critical
          {
            counter += 1;
            for (volatile int spin = 0; spin < 2000; spin = spin + 1) {
            }
          }
        }
      }
    });
  }
  usleep(10000);
  fork_many(forks, [&] {
    long own = 0;
#pragma omp parallel num_threads(2)
    {
#pragma omp critical
      own += 1;
    }
    return own == 2 && team_works(2);
  });
  stop = true;
  for (std::thread& t : others) t.join();
}

// Forks inside a region. The child execs or exits, and the region goes on in the parent.
void inside_region(int forks) {
  omp_set_num_threads(2);
  int rounds = 0;
  for (int i = 0; i < forks; ++i) {
    int good = 0;
#pragma omp parallel reduction(+ : good)
    {
      if (omp_get_thread_num() == 0) {
        const pid_t child = fork();
        if (child == 0) {
          if (i % 2 == 0) {
            execl("/proc/self/exe", "omp_forker", "nothing", static_cast<char*>(nullptr));
          }
          _exit(0);
        }
        int status = 0;
        good += waitpid(child, &status, 0) == child && status == 0 ? 1 : 0;
      }
#pragma omp barrier
    }
    rounds += good;
    if (write(STDOUT_FILENO, ".", 1) != 1) fail("write");
  }
  if (rounds != forks || !team_works(2)) fail("inside a region");
}

void copies(int forks, const std::vector<Copy>& others) {
  omp_set_num_threads(kThreads);
  const auto all_work = [&] {
    for (const Copy& copy : others) {
      if (!copy.works()) return false;
    }
    return team_works(kThreads);
  };
  if (!all_work()) fail("parent");
  fork_many(forks, all_work);
  if (!all_work()) fail("parent, after");
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, void (*)(int)> situations = {
      {"idle", idle},           {"generations", generations},
      {"variables", variables}, {"thread", thread_with_pool},
      {"flight", in_flight},    {"inside-region", inside_region},
  };
  const std::string name = argc > 1 ? argv[1] : "";
  if (name == "nothing") return 0;  // what a child runs that execs
  const char* most = getenv("FORKSAFE_TEST_MOST_FORKS");
  const int forks = std::min(argc > 2 ? atoi(argv[2]) : 0, most != nullptr ? atoi(most) : INT_MAX);
  std::vector<Copy> others;
  for (int i = 3; i < argc; ++i) others.emplace_back(argv[i]);
  const auto found = situations.find(name);
  if (forks > 0 && name == "copies") {
    copies(forks, others);
  } else if (forks > 0 && found != situations.end()) {
    found->second(forks);
  } else {
    fprintf(stderr, "usage: omp_forker SITUATION FORKS [LIBGOMP...]\n");
    return 2;
  }
  return 0;
}
