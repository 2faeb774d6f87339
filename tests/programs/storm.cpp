// SPDX-License-Identifier: Apache-2.0
// Forks very often, in ways that a seed chooses, and compares every result to the bit: of each
// child, of each call in flight, and of the threads that fork. scripts/soak.sh runs it.
//
//   storm --seed=N --forks=N [--blas=PATH] [--also=PATH] [--regions=yes] [--flight=N] ...
//
// What is done, and in which order, follows from the seed and the options. When it happens does
// not. For each child that ended well the program prints a dot. At its 1000th fork and at its end
// it measures what the parent has (Footprint), and prints both at the end as a line of JSON.
//
// Exit status: 0 all results are exact; 1 a child or the parent got another result; 2 wrong usage.
#include <dirent.h>
#include <link.h>
#include <omp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>
#include <thread>

#include "blas.h"

namespace {

constexpr int kMostThreads = 3;

// ---- what is computed ----

// Whether a region has a team of that many threads, and computes the right sum.
bool team_works(int threads) {
  long total = 0;
  int team = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
#pragma omp single
    team = omp_get_num_threads();
#pragma omp for
    for (int i = 0; i < 1000; ++i) total += i;
  }
  return team == threads && total == 499500;
}

// An operation, and its result with 1, 2 and more threads.
struct Known {
  Operation operation;
  std::vector<Matrix> references;
};

// What the children and the threads in flight compute.
class Work {
 public:
  explicit Work(const Arguments& arguments)
      : regions_(arguments.text("regions", "no") == "yes"),
        fewer_(arguments.text("accept", "same") == "fewer"),
        threads_(arguments.number("threads", 2)) {
    std::vector<std::string> paths;
    if (arguments.text("blas", "") != "") paths.push_back(arguments.text("blas", ""));
    std::istringstream also(arguments.text("also", ""));
    for (std::string path; std::getline(also, path, ':');) paths.push_back(path);
    for (const std::string& path : paths) {
      blas_.push_back(std::make_unique<Blas>(path, arguments.text("prefix", ""),
                                             arguments.text("suffix", ""), RTLD_NOW | RTLD_LOCAL));
    }
    std::istringstream operations(arguments.text("operations", "gemm:80,gemm:150,lu:120"));
    for (std::string each; std::getline(operations, each, ',');) {
      const size_t colon = each.find(':');
      for (const auto& blas : blas_) {
        learn(*blas, each.substr(0, colon), std::stoi(each.substr(colon + 1)));
      }
    }
    set_threads(threads_);
    if (known_.empty() && !regions_) fail(2, "nothing to compute: give --blas or --regions=yes");
  }

  int threads() const { return threads_; }
  bool takes_fewer() const { return fewer_; }

  void set_threads(int threads) const {
    for (const auto& blas : blas_) blas->set_threads(threads);
  }

  unsigned kinds() const { return static_cast<unsigned>(known_.size()) + (regions_ ? 1 : 0); }

  // Computes one thing, chosen by `choice`. Whether it is what `threads` threads must get.
  bool right(unsigned choice, int threads) const {
    const size_t kind = choice % kinds();
    if (kind == known_.size()) return team_works(threads);
    const Known& known = known_[kind];
    const Matrix result = known.operation.result();
    const auto is = [&](int t) {
      return same(result, known.references[static_cast<size_t>(t - 1)]);
    };
    if (is(threads)) return true;
    while (fewer_ && --threads > 0) {
      if (is(threads)) return true;
    }
    return false;
  }

 private:
  void learn(const Blas& blas, const std::string& name, int n) {
    Known known = {Operation(blas, name, n), {}};
    for (int threads = 1; threads <= kMostThreads; ++threads) {
      blas.set_threads(threads);
      known.references.push_back(known.operation.result());
      // If results differed without a fork, the test would prove nothing.
      if (!same(known.references.back(), known.operation.result())) {
        fail(2, "results do not repeat");
      }
    }
    known_.push_back(std::move(known));
  }

  bool regions_;
  bool fewer_;
  int threads_;
  std::vector<std::unique_ptr<Blas>> blas_;
  std::vector<Known> known_;
};

// ---- what the parent has ----

struct Footprint {
  long rss_kb = 0;
  long descriptors = 0;
  long mappings = 0;
  long objects = 0;  // of the dynamic linker's list
};

Footprint footprint() {
  Footprint result;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) result.rss_kb = std::stol(line.substr(6));
  }
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) ++result.mappings;
  DIR* folder = opendir("/proc/self/fd");
  while (const dirent* entry = readdir(folder)) {
    result.descriptors += entry->d_name[0] != '.' ? 1 : 0;
  }
  closedir(folder);
  dl_iterate_phdr(
      [](dl_phdr_info*, size_t, void* count) {
        ++*static_cast<long*>(count);
        return 0;
      },
      &result.objects);
  return result;
}

void print(const char* name, const Footprint& f) {
  printf(", \"%s\": {\"rss_kb\": %ld, \"descriptors\": %ld, \"mappings\": %ld, \"objects\": %ld}",
         name, f.rss_kb, f.descriptors, f.mappings, f.objects);
}

// ---- what a child does ----

using Random = std::mt19937;

bool one_in(Random* random, unsigned n) { return (*random)() % n == 0; }

// Everything is drawn before the fork, so a child does not depend on what else the parent has
// drawn.
struct Plan {
  enum class End { kReturn, kExit, kExec, kKilled };
  End end;
  int threads;           // that it sets; 0: as in the parent
  int computations;      // how often it computes
  bool beside;           // another thread of the child computes too
  bool loads;            // it loads and unloads a library
  unsigned sleep_us;     // before it computes
  unsigned generations;  // below it
  unsigned seed;
};

struct Limits {
  bool sets_threads;
  bool loads;
  bool exits;  // by exit(), which asks the dynamic linker what is loaded
  std::string plugin;
};

Plan draw(Random* random, const Limits& limits) {
  Plan plan = {};
  plan.seed = (*random)();
  const unsigned end = (*random)() % 16;
  plan.end = end == 0                   ? Plan::End::kExec
             : end == 1 && limits.exits ? Plan::End::kExit
             : end == 2                 ? Plan::End::kKilled
                                        : Plan::End::kReturn;
  plan.computations = static_cast<int>((*random)() % 3);
  plan.beside = one_in(random, 8);
  plan.loads = one_in(random, 16) && limits.loads;
  plan.sleep_us = one_in(random, 8) ? (*random)() % 3000 : 0;
  plan.generations = one_in(random, 8) ? 1 + (*random)() % 3 : 0;
  const unsigned threads = (*random)() % 16;
  plan.threads = threads < kMostThreads && limits.sets_threads ? static_cast<int>(threads) + 1 : 0;
  return plan;
}

void load_and_unload(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW);
  if (library == nullptr) fail(1, dlerror());
  dlclose(library);
}

void fork_and_wait(const Work& work, const Limits& limits, Plan plan);

void compute(const Work& work, int count, unsigned seed, int threads, const char* where) {
  for (int i = 0; i < count; ++i) {
    if (!work.right(seed + static_cast<unsigned>(i), threads)) fail(1, where);
  }
}

[[noreturn]] void run_child(const Work& work, const Limits& limits, const Plan& plan,
                            pid_t parent) {
  if (plan.end == Plan::End::kKilled) {
    // The parent may be killed before it kills this child, which would compute for ever.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
  }
  if (plan.sleep_us != 0) usleep(plan.sleep_us);
  int threads = work.threads();
  if (plan.threads != 0) work.set_threads(threads = plan.threads);
  if (plan.loads) load_and_unload(limits.plugin);
  // OpenMP's number belongs to a thread, so another thread has the one of the start.
  std::thread beside;
  if (plan.beside && plan.threads == 0) {
    beside = std::thread([&] { compute(work, 1, plan.seed + 1, threads, "inexact beside"); });
  }
  compute(work, plan.computations, plan.seed, threads, "inexact in a child");
  if (plan.generations != 0) {
    Random random(plan.seed);
    Plan next = draw(&random, limits);
    next.generations = plan.generations - 1;
    next.threads = plan.threads;
    fork_and_wait(work, limits, next);
    compute(work, 1, plan.seed, threads, "inexact after a fork in a child");
  }
  if (beside.joinable()) beside.join();
  if (plan.end == Plan::End::kExec) {
    execl("/proc/self/exe", "storm", "--forks=0", static_cast<char*>(nullptr));
    _exit(4);
  }
  if (plan.end == Plan::End::kExit) exit(0);
  if (plan.end == Plan::End::kKilled) {
    for (;;) compute(work, 1, plan.seed, threads, "inexact in a child that is killed");
  }
  _exit(0);
}

void expect_end(pid_t child, int killed_by) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) fail(1, "waitpid");
  }
  const bool well = WIFEXITED(status) ? WEXITSTATUS(status) == 0
                                      : WIFSIGNALED(status) && WTERMSIG(status) == killed_by;
  if (!well) fail(1, "a child ended with wait status " + std::to_string(status));
}

void fork_and_wait(const Work& work, const Limits& limits, Plan plan) {
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) fail(1, "fork");
  if (child == 0) run_child(work, limits, plan, parent);
  if (plan.end == Plan::End::kKilled) {
    usleep(plan.seed % 2000);
    kill(child, SIGKILL);
  }
  expect_end(child, plan.end == Plan::End::kKilled ? SIGKILL : 0);
}

// ---- who forks ----

class Storm {
 public:
  Storm(const Arguments& arguments, const Work& work, const Limits& limits)
      : work_(work),
        limits_(limits),
        seed_(static_cast<unsigned>(arguments.number("seed", 1))),
        most_forks_(arguments.number("forks", 1000)),
        seconds_(arguments.number("seconds", 3600)),
        measured_at_(arguments.number("measure-at", 1000)),
        forking_threads_(arguments.number("forking-threads", 1)),
        parent_sets_threads_(arguments.text("parent-sets-threads", "no") == "yes") {}

  long forks() const { return forks_.load(); }
  int forking_threads() const { return forking_threads_; }
  bool measured() const { return measured_; }
  const Footprint& early() const { return early_; }
  const Footprint& late() const { return late_; }

  // Forks again and again. Each forking thread has a number of its own.
  void fork_many(unsigned number) {
    Random random(seed_ * 1000 + number);
    int threads = work_.threads();
    // A thread gets its pool and its memory by computing. The first measurement must find them all.
    compute(work_, static_cast<int>(work_.kinds()), 0, threads, "inexact before a fork");
    for (++ready_; ready_ < forking_threads_;) usleep(1000);
    while (begin_fork()) {
      if (parent_sets_threads_ && one_in(&random, 8)) {
        // The children get other numbers, but their parent checks its own only.
        threads = 1 + static_cast<int>(random() % kMostThreads);
        work_.set_threads(threads);
        compute(work_, 1, random(), threads, "inexact in the parent");
        work_.set_threads(threads = work_.threads());
      }
      fork_and_wait(work_, limits_, draw(&random, limits_));
      dot();
      if (one_in(&random, 4)) compute(work_, 1, random(), threads, "inexact after a fork");
      if (one_in(&random, 16)) usleep(random() % 2000);
    }
  }

  // Each generation computes and forks the next.
  void chain(long generations) {
    compute(work_, 1, seed_ + static_cast<unsigned>(generations), work_.threads(),
            "inexact in a generation");
    dot();
    if (generations == 0) return;
    const pid_t child = fork();
    if (child < 0) fail(1, "fork");
    if (child == 0) {
      chain(generations - 1);
      _exit(0);
    }
    expect_end(child, 0);
    ++forks_;
  }

  // All children live at once. Each computes, waits until the last has been forked, and computes
  // again.
  void crowd(int children) {
    int go[2];
    if (pipe(go) != 0) fail(1, "pipe");
    std::vector<pid_t> all;
    for (int i = 0; i < children; ++i) {
      const pid_t child = fork();
      if (child < 0) fail(1, "fork");
      if (child == 0) {
        close(go[1]);
        compute(work_, 1, static_cast<unsigned>(i), work_.threads(), "inexact in a crowd");
        char byte;
        while (read(go[0], &byte, 1) < 0 && errno == EINTR) {
        }
        compute(work_, 1, static_cast<unsigned>(i), work_.threads(), "inexact in a crowd, again");
        _exit(0);
      }
      all.push_back(child);
      ++forks_;
      progress("+");
    }
    close(go[1]);
    for (const pid_t child : all) {
      expect_end(child, 0);
      dot();
    }
    close(go[0]);
  }

  // A fork, a pause, a fork, ... One child of 16 computes.
  void fork_often(int pause_us) {
    Random random(seed_);
    std::vector<pid_t> idle;
    while (begin_fork()) {
      const bool computes = one_in(&random, 16);
      const pid_t child = fork();
      if (child < 0) fail(1, "fork");
      if (child == 0) {
        if (computes) compute(work_, 1, random(), work_.threads(), "inexact in a child");
        _exit(0);
      }
      if (computes) {
        expect_end(child, 0);
      } else {
        idle.push_back(child);
      }
      if (idle.size() >= 16) {
        for (const pid_t each : idle) expect_end(each, 0);
        idle.clear();
      }
      dot();
      if (pause_us != 0) usleep(static_cast<unsigned>(pause_us));
    }
    for (const pid_t each : idle) expect_end(each, 0);
  }

 private:
  bool begin_fork() {
    if (std::chrono::steady_clock::now() - start_ <= std::chrono::seconds(seconds_)) {
      const long number = forks_.fetch_add(1);
      if (number == measured_at_) {
        early_ = footprint();
        measured_ = true;
      }
      if (number < most_forks_) return true;
      --forks_;
    }
    // The other threads that fork still have their pools, as they had at the first measurement.
    if (!ended_.exchange(true)) late_ = footprint();
    return false;
  }

  static void progress(const char* sign) {
    if (write(STDOUT_FILENO, sign, 1) != 1) _exit(1);
  }
  static void dot() { progress("."); }

  const Work& work_;
  const Limits& limits_;
  unsigned seed_;
  long most_forks_;
  long seconds_;
  long measured_at_;
  int forking_threads_;
  bool parent_sets_threads_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::atomic<int> ready_{0};
  std::atomic<long> forks_{0};
  std::atomic<bool> measured_{false};
  std::atomic<bool> ended_{false};
  Footprint early_, late_;
};

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv);
  if (arguments.number("spin", 0) != 0) {  // overload for others
    std::vector<std::thread> spinners;
    for (int i = 0; i < arguments.number("spin", 0); ++i) {
      spinners.emplace_back([] {
        for (volatile unsigned long n = 0;; n = n + 1) {
        }
      });
    }
    pause();
  }
  if (arguments.number("forks", 1000) == 0) return 0;  // what a child runs that execs
  const Work work(arguments);
  const std::string churn = arguments.text("churn", "");
  const Limits limits = {
      arguments.text("children-set-threads", "yes") == "yes" && !work.takes_fewer(),
      arguments.text("children-load", "no") == "yes", arguments.text("load-churn", "no") == "no",
      arguments.text("plugin", "")};
  Storm storm(arguments, work, limits);

  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  std::atomic<long> calls{0};
  const auto seed = static_cast<unsigned>(arguments.number("seed", 1));
  for (int i = 0; i < arguments.number("flight", 0); ++i) {
    others.emplace_back([&, i] {
      for (unsigned n = seed + static_cast<unsigned>(i); !stop.load(); ++n) {
        compute(work, 1, n, work.threads(), "inexact in flight");
        ++calls;
      }
    });
  }
  if (arguments.text("thread-churn", "no") == "yes") {
    others.emplace_back([&] {
      for (unsigned n = seed; !stop.load(); ++n) {
        std::thread([&] {
          compute(work, 1, n, work.threads(), "inexact in a short thread");
        }).join();
        usleep(n % 5000);
      }
    });
  }
  if (arguments.text("load-churn", "no") == "yes") {
    others.emplace_back([&] {
      while (!stop.load()) {
        load_and_unload(limits.plugin);
        usleep(1000);
      }
    });
  }

  if (const int generations = arguments.number("chain", 0)) {
    storm.chain(generations);
  } else if (const int children = arguments.number("crowd", 0)) {
    storm.crowd(children);
  } else if (const int pause_us = arguments.number("pause-us", -1); pause_us >= 0) {
    storm.fork_often(pause_us);
  } else {
    std::vector<std::thread> forking;
    for (int i = 1; i < storm.forking_threads(); ++i) {
      forking.emplace_back([&, i] { storm.fork_many(static_cast<unsigned>(i)); });
    }
    if (arguments.text("from", "main") == "main") {
      storm.fork_many(0);
    } else {
      std::thread([&] { storm.fork_many(0); }).join();
    }
    for (std::thread& t : forking) t.join();
  }

  stop.store(true);
  for (std::thread& t : others) t.join();
  printf("\n{\"forks\": %ld, \"calls\": %ld", storm.forks(), calls.load());
  if (storm.measured()) {
    print("early", storm.early());
    print("late", storm.late());
  }
  printf("}\n");
  return 0;
}
