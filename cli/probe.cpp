// SPDX-License-Identifier: Apache-2.0
// forksafe-probe idle|in-flight FORKS LIBRARY [DEPENDENCY...]
//
// Tries whether fork is safe with a BLAS or an OpenMP runtime. This process may hang or crash. It
// computes with the threads of LIBRARY and forks. Each child computes the same and compares the
// result bit for bit. With in-flight, two more threads of the parent compute all the time. It forks
// at most FORKS times, and stops after two seconds if it has forked at least 20 times.
//
// Standard output: a ':' before the first fork, and a '.' for each child with the right result. The
// program has no timeout: the process that reads the output must notice that it stops. The output
// of LIBRARY goes to standard error, and so does the reason for an exit status other than 0, as
// "forksafe-probe: ...".
//
// Exit status: 0 all children are right; 1 a result was inexact; 2 bad usage, or a library could
// not be loaded; 3 nothing to prove: there is no known way to make LIBRARY compute, or it computes
// with one thread; 4 a child crashed.
//
// The program needs libc alone and no C++ library, so that only LIBRARY brings other libraries.
#include <dirent.h>
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "elf/image.h"

namespace {

using forksafe::ElfImage;

enum Status { kInexact = 1, kUnusable = 2, kNothingToProve = 3, kCrashed = 4 };

[[noreturn, gnu::format(printf, 2, 3)]] void stop(Status status, const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  dprintf(STDERR_FILENO, "forksafe-probe: %s\n", text);
  _exit(status);
}

// ---- What is computed. Any order of summation, by any number of threads, gives the same bits.

// Up to an order of 64, OpenBLAS uses one thread. From 256 on, the threads of BLIS spin while they
// wait for each other, which takes seconds for a product if there are more threads than processors.
// And with short calls, more forks happen at dangerous moments.
constexpr int64_t kOrder = 128;
constexpr size_t kElements = kOrder * kOrder;
constexpr int kItems = 64;

// Both kinds of work fill a Result. The work for OpenMP uses its first kItems elements.
struct Result {
  double values[kElements];
};

// Integers are passed as 64-bit words with a 32-bit value: see as_integer().
using Gemm = void (*)(const char*, const char*, const int64_t*, const int64_t*, const int64_t*,
                      const double*, const double*, const int64_t*, const double*, const int64_t*,
                      const double*, double*, const int64_t*, size_t, size_t);
using Parallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

Gemm gemm = nullptr;
bool has_wide_integers = false;  // gemm's have 64 bits
Parallel parallel = nullptr;
double factor[kElements];

// On little-endian machines a word is right for libraries with 64-bit integers and for libraries
// with 32-bit integers. On others the latter read the word's upper half.
int64_t as_integer(int64_t value) {
  const bool reads_upper_half = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ && !has_wide_integers;
  return reads_upper_half ? value << 32 : value;
}

// Small integers, none of them 0.
void fill_factor() {
  uint32_t state = 2463534242U;
  for (double& x : factor) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    x = (state & 8U) != 0 ? 1 + (state & 7U) : -1.0 - (state & 7U);
  }
}

struct Team {
  std::atomic<int> next{0};
  Result* result = nullptr;
};

void take_items(void* data) {
  Team* team = static_cast<Team*>(data);
  for (int i; (i = team->next.fetch_add(1)) < kItems;) {
    uint32_t state = static_cast<uint32_t>(i) + 1;
    for (int step = 0; step < 10000; ++step) state = state * 1664525U + 1013904223U;
    team->result->values[i] = state;
  }
}

void compute(Result* result) {
  memset(result, 0, sizeof *result);
  if (gemm != nullptr) {
    const double one = 1;
    const double zero = 0;
    const int64_t n = as_integer(kOrder);
    gemm("N", "N", &n, &n, &n, &one, factor, &n, factor, &n, &zero, result->values, &n, 1, 1);
  } else {
    Team team;
    team.result = result;
    parallel(take_items, &team, 0, 0);
  }
}

Result reference;

bool computes_well(Result* scratch) {
  compute(scratch);
  return memcmp(scratch, &reference, sizeof reference) == 0;
}

// ---- The library and the function to call.

// Loads a library as for a program that is linked to it: into the global scope, in the order of the
// calls, with lazy binding. MKL needs that: its layers do not name all layers that they call.
void* load(const char* path) {
  void* handle = dlopen(path, RTLD_LAZY | RTLD_GLOBAL);
  if (handle == nullptr) stop(kUnusable, "%s", dlerror());
  return handle;
}

struct Search {
  uintptr_t base;
  ElfImage image;
  bool found;
};

// The symbols of LIBRARY itself. dlsym would also find those of its dependencies.
ElfImage image_of(void* handle) {
  const link_map* map = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0) stop(kUnusable, "%s", dlerror());
  Search search = {map->l_addr, {}, false};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto* s = static_cast<Search*>(data);
        if (info->dlpi_addr != s->base) return 0;
        s->found = s->image.read(*info);
        return 1;
      },
      &search);
  if (!search.found) stop(kNothingToProve, "its symbols can't be read");
  return search.image;
}

void find_entry(const ElfImage& image) {
  // A build of OpenBLAS may have a prefix and a suffix: PREFIXopenblas_get_configSUFFIX.
  char own_name[256] = "";
  image.any_symbol([&](const char* name, forksafe::Symbol) {
    static constexpr char kMark[] = "openblas_get_config";
    const char* mark = strstr(name, kMark);
    if (mark == nullptr) return false;
    snprintf(own_name, sizeof own_name, "%.*sdgemm_%s", static_cast<int>(mark - name), name,
             mark + sizeof kMark - 1);
    return true;
  });
  for (const char* name : {static_cast<const char*>(own_name), "dgemm_", "dgemm_64_", "dgemm"}) {
    if (gemm != nullptr) break;
    gemm = reinterpret_cast<Gemm>(image.find(name).address);
    has_wide_integers = strstr(name, "64_") != nullptr;
  }
  // LLVM's and Intel's runtimes define this function of GNU OpenMP too.
  parallel = reinterpret_cast<Parallel>(image.find("GOMP_parallel").address);
  if (gemm == nullptr && parallel == nullptr) {
    stop(kNothingToProve, "it is no BLAS (dgemm) and no OpenMP runtime (GOMP_parallel)");
  }
}

// ---- Threads of the parent.

double now() {
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

pthread_t start(void* (*body)(void*), void* argument) {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, body, argument) != 0) stop(kUnusable, "pthread_create");
  return thread;
}

int count_threads() {
  DIR* tasks = opendir("/proc/self/task");
  if (tasks == nullptr) stop(kUnusable, "/proc/self/task can't be read");
  int count = 0;
  while (const dirent* entry = readdir(tasks)) count += entry->d_name[0] != '.' ? 1 : 0;
  closedir(tasks);
  return count;
}

std::atomic<bool> finished{false};
std::atomic<int> most_threads{0};

void count_most_threads() {
  const int count = count_threads();
  if (count > most_threads.load()) most_threads.store(count);
}

void* watch_threads(void*) {
  while (!finished.load()) {
    count_most_threads();
    usleep(100);
  }
  return nullptr;
}

// A pool may start at the first call, some time after it, or at each call (BLIS). So count the
// threads during the computation, and then for a second at most.
bool computes_with_threads(Result* scratch) {
  const pthread_t watcher = start(watch_threads, nullptr);
  const double begin = now();
  compute(&reference);
  for (count_most_threads(); most_threads.load() <= 2 && now() - begin < 1; count_most_threads()) {
    if (!computes_well(scratch)) stop(kInexact, "results differ before any fork");
  }
  finished.store(true);
  pthread_join(watcher, nullptr);
  finished.store(false);
  return most_threads.load() > 2;  // this one and the watcher
}

std::atomic<int> computing{0};

void* keep_computing(void* scratch) {
  for (bool first = true; !finished.load(); first = false) {
    if (!computes_well(static_cast<Result*>(scratch))) stop(kInexact, "inexact in the parent");
    if (first) computing.fetch_add(1);
  }
  return nullptr;
}

// ---- Forks.

constexpr int kEnoughForks = 20;
constexpr double kEnoughSeconds = 2;

pid_t main_process;

// SIGKILL to this process also ends its children, even if they hang.
void end_with_parent() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != main_process) _exit(0);
}

void fork_once(Result* scratch) {
  const pid_t child = fork();
  if (child < 0) stop(kUnusable, "fork: %s", strerror(errno));
  if (child == 0) _exit(computes_well(scratch) && computes_well(scratch) ? 0 : kInexact);
  int status;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) stop(kUnusable, "waitpid: %s", strerror(errno));
  }
  if (WIFSIGNALED(status)) {
    stop(kCrashed, "a child crashed: %s", strsignal(WTERMSIG(status)));
  }
  if (WEXITSTATUS(status) == kInexact) stop(kInexact, "inexact in a child");
  if (WEXITSTATUS(status) != 0) {
    stop(kCrashed, "a child ended itself with status %d", WEXITSTATUS(status));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool in_flight = argc > 1 && strcmp(argv[1], "in-flight") == 0;
  const int forks = argc > 2 ? atoi(argv[2]) : 0;
  if (argc < 4 || (!in_flight && strcmp(argv[1], "idle") != 0) || forks < 1) {
    stop(kUnusable, "usage: forksafe-probe idle|in-flight FORKS LIBRARY [DEPENDENCY...]");
  }
  const int answers = dup(STDOUT_FILENO);
  if (answers < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) stop(kUnusable, "no standard output");

  // This handler must come before those of LIBRARY, which may hang.
  main_process = getpid();
  pthread_atfork(nullptr, nullptr, end_with_parent);

  for (int i = 4; i < argc; ++i) load(argv[i]);
  find_entry(image_of(load(argv[3])));
  fill_factor();
  static Result scratch[3];
  if (!computes_with_threads(&scratch[0])) {
    stop(kNothingToProve, "it computes with one thread here");
  }

  const int others = in_flight ? 2 : 0;
  pthread_t threads[2];
  for (int i = 0; i < others; ++i) threads[i] = start(keep_computing, &scratch[i + 1]);
  while (computing.load() < others) usleep(100);

  if (write(answers, ":", 1) != 1) return kUnusable;
  const double begin = now();
  for (int i = 0; i < forks && (i < kEnoughForks || now() - begin < kEnoughSeconds); ++i) {
    fork_once(&scratch[0]);
    if (write(answers, ".", 1) != 1) return kUnusable;
  }

  // Check that the parent can still compute, in each of its threads.
  finished.store(true);
  for (int i = 0; i < others; ++i) pthread_join(threads[i], nullptr);
  if (!computes_well(&scratch[0])) stop(kInexact, "inexact in the parent");
  // Skip the destructors of the library, which are not under test.
  _exit(0);
}
