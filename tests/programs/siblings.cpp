// SPDX-License-Identifier: Apache-2.0
// Checks how many threads children compute with while their siblings compute, rest or end: the
// promise of FORKSAFE_CHILD_THREADS=auto.
//
//   siblings --runtime=openblas|blis|openmp [--blas=PATH] [--prefix=] [--suffix=] [--seconds=20]
//            [--load-in-child=yes]
//
// --load-in-child: the children load the BLAS, and the parent does not.
//
// The parent gives each child orders in shared memory, and waits until the child has the number of
// threads that it should have, for at most --seconds. For each check that holds it prints a dot.
// Exit status: 0 all checks held; 1 one did not; 2 wrong usage; 77 there is one processor only.
#include <dirent.h>
#include <dlfcn.h>
#include <link.h>
#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(int status, const std::string& message) {
  const std::string line = message + "\n";
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) std::abort();
  _exit(status);
}

std::map<std::string, std::string> options;

std::string option(const std::string& name, const std::string& fallback) {
  const auto found = options.find(name);
  return found == options.end() ? fallback : found->second;
}

int count_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) fail(2, "sched_getaffinity");
  return CPU_COUNT(&set);
}

int count_own_threads() {
  int count = 0;
  DIR* tasks = opendir("/proc/self/task");
  while (const dirent* entry = readdir(tasks)) count += entry->d_name[0] != '.' ? 1 : 0;
  closedir(tasks);
  return count;
}

// What the children do with a runtime.
class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual void load() = 0;
  virtual void compute() = 0;
  virtual int threads() = 0;  // of the last computation
  virtual void set(int threads) = 0;
  // Whether the library sees the call of set().
  virtual bool setting_is_seen() = 0;
};

bool is_executable(const void* address) {
  struct Asked {
    uintptr_t address;
    bool executable;
  };
  Asked asked = {reinterpret_cast<uintptr_t>(address), false};
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void* data) {
        auto* a = static_cast<Asked*>(data);
        for (int i = 0; i < object->dlpi_phnum; ++i) {
          const ElfW(Phdr)& p = object->dlpi_phdr[i];
          const bool is_here =
              p.p_type == PT_LOAD && a->address - object->dlpi_addr - p.p_vaddr < p.p_memsz;
          if (is_here) a->executable = (p.p_flags & PF_X) != 0;
        }
        return 0;
      },
      &asked);
  return asked.executable;
}

class OpenBlas : public Runtime {
 public:
  void load() override {
    library_ = dlopen(option("blas", "").c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) fail(2, dlerror());
    gemm_ = reinterpret_cast<Gemm>(find("dgemm_"));
    a_.assign(kOrder * kOrder, 1.0);
    c_ = a_;
  }
  void compute() override {
    const int64_t n = kOrder;
    const double one = 1.0;
    const double zero = 0.0;
    gemm_("N", "N", &n, &n, &n, &one, a_.data(), &n, a_.data(), &n, &zero, c_.data(), &n, 1, 1);
    if (c_[0] != kOrder) fail(1, "inexact");
  }
  int threads() override { return reinterpret_cast<int (*)()>(find("openblas_get_num_threads"))(); }
  void set(int threads) override {
    reinterpret_cast<void (*)(int)>(find("openblas_set_num_threads"))(threads);
    // From 0.3.24 on an OpenMP build ignores its own number and uses that of its runtime.
    using Set = void (*)(int);
    if (auto set = reinterpret_cast<Set>(dlsym(library_, "omp_set_num_threads"))) set(threads);
  }
  // The library does not see a function that dlsym has found where the symbol table lies in a page
  // with code (docs/limits.md).
  bool setting_is_seen() override {
    Dl_info object;
    void* symbol = nullptr;
    if (dladdr1(find("dgemm_"), &object, &symbol, RTLD_DL_SYMENT) == 0 || symbol == nullptr) {
      fail(2, "dgemm_ has no symbol");
    }
    return !is_executable(symbol);
  }

 protected:
  static constexpr size_t kOrder = 200;
  void* find(const std::string& name) const {
    void* result = dlsym(library_, (option("prefix", "") + name + option("suffix", "")).c_str());
    if (result == nullptr) fail(2, "the library has no " + name);
    return result;
  }

 private:
  using Gemm = void (*)(const char*, const char*, const int64_t*, const int64_t*, const int64_t*,
                        const double*, const double*, const int64_t*, const double*, const int64_t*,
                        const double*, double*, const int64_t*, size_t, size_t);
  void* library_ = nullptr;
  Gemm gemm_ = nullptr;
  std::vector<double> a_;
  std::vector<double> c_;
};

class Blis : public OpenBlas {
 public:
  int threads() override {
    return static_cast<int>(reinterpret_cast<long (*)()>(find("bli_thread_get_num_threads"))());
  }
  void set(int threads) override {
    reinterpret_cast<void (*)(long)>(find("bli_thread_set_num_threads"))(threads);
  }
};

// Regions of this program's own.
class OpenMp : public Runtime {
 public:
  void load() override {}
  void compute() override {
    std::atomic<int> team{0};
    // Each computation has one of two kinds of region, and not both, because the number may change
    // from one region to the next.
    if (++rounds_ % 2 == 0) {
#pragma omp parallel
      {
        volatile double sum = 0;
        for (int i = 0; i < 100000; ++i) sum = sum + i;
#pragma omp single
        team = omp_get_num_threads();
      }
    } else {
#pragma omp parallel for schedule(dynamic)
      for (int i = 0; i < 64; ++i) {
        volatile double sum = 0;
        for (int k = 0; k < 2000; ++k) sum = sum + k;
        team = omp_get_num_threads();
      }
    }
    int explicit_team = 0;
#pragma omp parallel num_threads(3)
#pragma omp single
    explicit_team = omp_get_num_threads();
    if (explicit_team != 3) fail(1, "a region with num_threads(3) has another team");
    team_ = team;
  }
  int threads() override { return team_; }
  void set(int threads) override { omp_set_num_threads(threads); }
  bool setting_is_seen() override { return true; }

 private:
  int team_ = 0;
  int rounds_ = 0;
};

enum Order : int { kCompute, kRest, kSet, kPin, kAsk, kFork };

struct Seat {
  std::atomic<pid_t> pid;
  std::atomic<int> order;
  std::atomic<int> argument;
  std::atomic<int> threads;   // number of threads of its last computation
  std::atomic<int> tasks;     // how many threads the process has
  std::atomic<int> rounds;    // computations so far
  std::atomic<int> answered;  // orders carried out
  std::atomic<bool> setting_is_seen;
};
constexpr int kSeats = 16;
Seat* seats = nullptr;
Runtime* runtime = nullptr;

void fork_child(int seat);

void carry_out(Seat* seat, int order) {
  switch (order) {
    case kSet: runtime->set(seat->argument.load()); break;
    case kPin: {
      cpu_set_t set;
      sched_getaffinity(0, sizeof set, &set);
      int cpu = 0;
      while (!CPU_ISSET(cpu, &set)) ++cpu;
      CPU_ZERO(&set);
      CPU_SET(cpu, &set);
      sched_setaffinity(0, sizeof set, &set);
      break;
    }
    case kAsk: seat->argument = omp_get_max_threads(); break;
    case kFork: fork_child(seat->argument.load()); break;
    default: _exit(2);
  }
  seat->order = kCompute;
  ++seat->answered;
}

[[noreturn]] void run_child(Seat* seat) {
  seat->pid = getpid();
  seat->setting_is_seen = runtime->setting_is_seen();
  for (;;) {
    const int order = seat->order.load();
    if (order == kRest) {
      usleep(2000);
    } else if (order == kCompute) {
      runtime->compute();
      seat->threads = runtime->threads();
      seat->tasks = count_own_threads();
      ++seat->rounds;
    } else {
      carry_out(seat, order);
    }
  }
}

std::vector<pid_t> children;
std::string number_in_environment;  // OPENBLAS_NUM_THREADS of the next child

void fork_child(int number) {
  const pid_t child = fork();
  if (child < 0) fail(1, "fork");
  if (child == 0) {
    if (!number_in_environment.empty()) {
      setenv("OPENBLAS_NUM_THREADS", number_in_environment.c_str(), 1);
    }
    if (option("load-in-child", "no") == "yes") runtime->load();
    run_child(&seats[number]);
  }
  children.push_back(child);
}

// What an earlier child has left in its seat says nothing of the next one.
void clear_seat(int number, int order) {
  Seat& seat = seats[number];
  seat.order = order;
  seat.pid = seat.threads = seat.tasks = seat.rounds = seat.answered = 0;
}

pid_t start(int number, int order = kCompute) {
  clear_seat(number, order);
  fork_child(number);
  return children.back();
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename Condition>
bool in_time(Condition condition) {
  const double end = seconds() + std::stod(option("seconds", "20"));
  while (!condition()) {
    if (seconds() > end) return false;
    usleep(2000);
  }
  return true;
}

void give(int number, int order, int argument = 0) {
  Seat& seat = seats[number];
  const int before = seat.answered;
  if (order == kFork) clear_seat(argument, kCompute);
  seat.argument = argument;
  seat.order = order;
  if (order == kRest || order == kCompute) return;
  if (!in_time([&] { return seat.answered > before; })) fail(1, "a child does not answer");
}

void held(const std::string& what, bool result, int number) {
  if (!result) {
    for (const pid_t child : children) kill(child, SIGKILL);
    fail(1, "did not hold: " + what + ": " + std::to_string(seats[number].threads) + " threads");
  }
  if (write(STDOUT_FILENO, ".", 1) != 1) _exit(1);
}

void comes_to(const std::string& what, int number, int threads) {
  held(what, in_time([&] { return seats[number].threads == threads; }), number);
}

// Checks that the number stays for 60 computations and for half a second. That is long enough for a
// child to notice that a sibling has ended.
void stays_at(const std::string& what, int number, int threads) {
  const int before = seats[number].rounds;
  const double begin = seconds();
  bool stays = true;
  in_time([&] {
    stays = stays && seats[number].threads == threads;
    return seats[number].rounds > before + 60 && seconds() > begin + 0.5;
  });
  held(what, stays && seats[number].rounds > before, number);
}

// Kills all children, and waits until the library no longer counts them.
void end_all() {
  for (const pid_t child : children) kill(child, SIGKILL);
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  children.clear();
  usleep(150000);
}

// Calls `attempt` until it returns true, at most five times, and ends all children in between. For
// numbers that a child gets once: on a busy machine its sibling may not have run lately, and then
// the sibling does not count as computing.
template <typename Attempt>
bool one_of_five(Attempt attempt) {
  for (int left = 4; !attempt(); --left) {
    if (left == 0) return false;
    end_all();
  }
  return true;
}

// Checks that a number that the program sets in a child wins over the child's share.
void check_setting(int all) {
  // The child sets the number that it has already. The library must notice the call itself, because
  // the number does not change.
  start(0);
  start(1);
  comes_to("one of two siblings has half", 0, all / 2);
  give(0, kSet, all / 2);
  comes_to("a number that the program sets is its number", 0, all / 2);
  kill(children.back(), SIGKILL);
  stays_at("a number that the program sets holds", 0, all / 2);
  end_all();
  start(0);
  comes_to("a child that is alone has all", 0, all);
  give(0, kSet, all);
  start(1);
  comes_to("a sibling of one that has set its number has half", 1, all / 2);
  stays_at("a number that the program sets holds beside a sibling", 0, all);
  end_all();
}

// A child gets the number for its own regions once, at its first region or question.
void check_regions(int all) {
  const bool half = one_of_five([&] {
    start(0);
    comes_to("the first region of a child that is alone has all", 0, all);
    start(1);
    return in_time([] { return seats[1].threads != 0; }) && seats[1].threads == all / 2;
  });
  held("the first region beside a sibling has half", half, 1);
  stays_at("the number of an earlier child holds", 0, all);
  give(0, kRest);
  stays_at("the number holds when the sibling rests", 1, all / 2);
  give(1, kFork, 2);
  comes_to("a grandchild has its parent's number", 2, all / 2);
  kill(seats[2].pid, SIGKILL);
  end_all();

  const bool answers = one_of_five([&] {
    start(1);
    comes_to("the first region of a child that is alone has all", 1, all);
    start(0, kRest);
    give(0, kAsk);
    return seats[0].argument == all / 2;
  });
  held("omp_get_max_threads answers with the share", answers, 0);
  kill(children.front(), SIGKILL);
  comes_to("a region has the number that was asked for", 0, all / 2);
  stays_at("the number that was asked for holds", 0, all / 2);
  end_all();

  start(0, kRest);
  give(0, kPin);
  comes_to("a child that may run on one processor has one thread", 0, 1);
  end_all();

  start(1);
  comes_to("the first region of a child that is alone has all", 1, all);
  start(0, kRest);
  give(0, kSet, all);
  comes_to("a number that the program sets is its number", 0, all);
  stays_at("a number that the program sets holds beside a sibling", 0, all);
  end_all();

  runtime->compute();
  if (runtime->threads() != all) fail(2, "the parent has not all threads");
  start(0);
  start(1);
  for (const int child : {0, 1}) {
    comes_to("a child of a parent that has had regions has the parent's number", child, all);
    stays_at("a child of a parent that has had regions keeps the number", child, all);
  }
  end_all();
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i];
    const size_t equals = text.find('=');
    if (text.rfind("--", 0) != 0 || equals == std::string::npos) fail(2, "usage: " + text);
    options[text.substr(2, equals - 2)] = text.substr(equals + 1);
  }
  const std::string name = option("runtime", "");
  OpenBlas openblas;
  Blis blis;
  OpenMp openmp;
  runtime = name == "openblas" ? &openblas : name == "blis" ? &blis : nullptr;
  if (name == "openmp") runtime = &openmp;
  if (runtime == nullptr) fail(2, "no such runtime: " + name);
  const int all = count_processors();
  if (all < 2) fail(77, "one processor: children have one thread anyway");
  seats = static_cast<Seat*>(mmap(nullptr, kSeats * sizeof(Seat), PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0));

  if (name == "openmp") {
    check_regions(all);
    return 0;
  }

  const bool in_child = option("load-in-child", "no") == "yes";
  if (!in_child) {
    runtime->load();
    runtime->set(all);
    runtime->compute();
    if (runtime->threads() != all) fail(2, "the parent has not all threads");
  }

  start(0);
  comes_to("a child that is alone has all", 0, all);
  end_all();

  start(0);
  start(1);
  comes_to("one of two siblings has half", 0, all / 2);
  comes_to("the other of two siblings has half", 1, all / 2);
  give(1, kRest);
  comes_to("a child whose sibling rests has all", 0, all);
  give(1, kCompute);
  comes_to("a child whose sibling computes again has half", 0, all / 2);
  if (!in_child) {
    runtime->compute();
    seats[2].threads = runtime->threads();
    comes_to("the parent keeps all", 2, all);
  }
  kill(children.back(), SIGKILL);  // it stays a zombie until end_all()
  comes_to("a child whose sibling was killed has all", 0, all);
  end_all();

  for (int i = 0; i < 8; ++i) start(i, kRest);
  for (int i = 0; i < 8; ++i) give(i, kCompute);
  const int eighth = all > 8 ? all / 8 : 1;
  for (int i = 0; i < 8; ++i) comes_to("each of eight has an eighth, but one at least", i, eighth);
  end_all();

  // Child 1 forks child 0, which is a grandchild of this process.
  start(1);
  give(1, kFork, 0);
  comes_to("a grandchild counts its parent", 0, all / 2);
  comes_to("a child counts its own child", 1, all / 2);
  const pid_t grandchild = seats[0].pid;
  kill(grandchild, SIGKILL);
  end_all();

  start(0);
  give(0, kPin);
  comes_to("a child that may run on one processor has one thread", 0, 1);
  end_all();

  if (seats[0].setting_is_seen) check_setting(all);

  if (in_child) {
    number_in_environment = "1";  // OpenBLAS takes none that is larger than all
    start(0);
    comes_to("a number in the child's environment holds", 0, 1);
    stays_at("a number in the child's environment holds", 0, 1);
    end_all();
  }

  return 0;
}
