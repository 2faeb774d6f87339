// SPDX-License-Identifier: Apache-2.0
// Measures what fork() costs the parent, compared with _Fork(), which runs no handlers, in the same
// process with the same live pool.
//
//   fork_cost --blas=PATH [--prefix=scipy_] [--suffix=64_] [--pairs=300] [--threads=2]
//
// Options for the state of the process:
//
//   --resident-mb=MB                     it has that much memory, all touched
//   --after-call=1                       each fork comes right after a call: the pool still spins
//   --flight=THREADS [--n=600]           that many threads are inside calls all the time
//   --objects=N --object=FILE            it loads N more objects, copies of FILE
//   --copies=N                           it has N copies of the OpenBLAS, each with a pool
//   --alive=N                            N earlier children are still alive
//   --depth=N                            it is the last of N nested forks, each of which computed
//   --folder=EMPTY_FOLDER                where --objects and --copies put their files
//
// fork() and _Fork() take turns in pairs, and each pair swaps the order, so other work on the
// machine falls on both. Prints one line of JSON: the time within the call, the page faults of the
// calling thread in it, and the ratio and the difference of each pair. The ratio falls as the
// process grows, because both copy the page tables, and the handlers' part does not grow.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

#include "bench.h"

namespace {

using bench::Blas;
using bench::Matrices;

struct Series {
  std::vector<double> us;
  std::vector<double> faults;
};

void measure(pid_t (*call)(), Series* series) {
  const double faults_before = bench::page_faults(RUSAGE_THREAD);
  const double begin = bench::now_us();
  const pid_t child = call();
  const double end = bench::now_us();
  if (child == 0) _exit(0);
  const double faults_after = bench::page_faults(RUSAGE_THREAD);
  if (child < 0) bench::fail(std::string("fork: ") + strerror(errno));
  series->us.push_back(end - begin);
  series->faults.push_back(faults_after - faults_before);
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) bench::fail("a child failed");
}

// Stands for a program that has worked before: allocates that much memory and touches all of it.
void touch(int megabytes) {
  const size_t size = static_cast<size_t>(megabytes) << 20;
  auto* memory = static_cast<char*>(malloc(size));
  if (memory == nullptr) bench::fail("no memory");
  for (size_t i = 0; i < size; i += 4096) const_cast<volatile char*>(memory)[i] = 1;
}

/// Children that are forked before the measurement and live until its end.
class Crowd {
 public:
  explicit Crowd(int count) {
    for (int i = 0; i < count; ++i) {
      const pid_t child = fork();
      if (child < 0) bench::fail(std::string("fork: ") + strerror(errno));
      if (child == 0) {
        for (;;) pause();
      }
      children_.push_back(child);
    }
  }
  ~Crowd() {
    for (const pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }

 private:
  std::vector<pid_t> children_;
};

/// Returns in a process `depth` forks below this one. Each process before it forks and waits, and
/// each child computes.
void descend(int depth, const Blas& blas, Matrices* data) {
  for (int i = 0; i < depth; ++i) {
    const pid_t child = fork();
    if (child < 0) bench::fail(std::string("fork: ") + strerror(errno));
    if (child > 0) {
      int status;
      waitpid(child, &status, 0);
      _exit(status == 0 ? 0 : 2);
    }
    data->multiply(blas);
  }
}

/// Threads that call dgemm over and over.
class Flight {
 public:
  Flight(const Blas& blas, int threads, int n) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this, &blas, n] {
        Matrices matrices(n);
        while (!stop_.load()) {
          matrices.multiply(blas);
          calls_.fetch_add(1);
        }
      });
    }
  }
  /// Ends the threads, and returns how many calls they have made.
  long land() {
    stop_.store(true);
    for (std::thread& thread : threads_) thread.join();
    return calls_.load();
  }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<long> calls_{0};
  std::vector<std::thread> threads_;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const int pairs = options.number("pairs", 300);
  const int flying = options.number("flight", 0);
  const bool after_call = options.number("after-call", 0) != 0;
  const int threads = options.number("threads", 2);
  const std::string folder = options.text("folder", "");

  // glibc 2.34 and later.
  const auto bare_fork = reinterpret_cast<pid_t (*)()>(dlsym(RTLD_DEFAULT, "_Fork"));
  if (bare_fork == nullptr) {
    fprintf(stderr, "this libc has no _Fork\n");
    return 77;
  }

  touch(options.number("resident-mb", 0));
  bench::load_copies(options.text("object", ""), folder, options.number("objects", 0));
  const Blas blas(options);
  blas.set_threads(threads);
  Matrices data(400);  // it stays allocated, as the data of a program does
  data.multiply(blas);
  // --blas itself is one of the copies.
  for (void* handle :
       bench::load_copies(options.text("blas", ""), folder, options.number("copies", 1) - 1)) {
    const Blas copy(options, handle);
    copy.set_threads(threads);
    data.multiply(copy);
  }
  descend(options.number("depth", 0), blas, &data);
  const Crowd crowd(options.number("alive", 0));
  Flight flight(blas, flying, options.number("n", 600));
  // Give the pool time to go to sleep, or the calls in flight time to begin.
  bench::sleep_us(300000);

  Series with_handlers;
  Series bare;
  std::vector<double> ratios;
  std::vector<double> more;
  for (int pair = 0; pair < pairs; ++pair) {
    for (int turn = 0; turn < 2; ++turn) {
      if (after_call) data.multiply(blas);
      if ((pair + turn) % 2 == 0) {
        measure(fork, &with_handlers);
      } else {
        measure(bare_fork, &bare);
      }
      // Vary the pause, so that forks do not keep step with the calls in flight.
      bench::sleep_us(flying != 0 ? 3000 + pair % 7 * 1000 : 1000);
    }
    ratios.push_back(with_handlers.us.back() / bare.us.back());
    more.push_back(with_handlers.us.back() - bare.us.back());
  }
  // The first fork has costs that later ones do not have, so it is reported by itself.
  const double first = with_handlers.us.front();
  if (pairs > 1) with_handlers.us.erase(with_handlers.us.begin());

  const long calls = flight.land();
  printf(
      "{\"fork_us\": %s, \"bare_us\": %s, \"ratio\": %s, \"more_us\": %s, "
      "\"first_fork_us\": %.1f, \"slowest_fork_us\": %.1f, \"fork_faults\": %s, "
      "\"bare_faults\": %s, \"calls_in_flight\": %ld}\n",
      bench::summary(with_handlers.us).c_str(), bench::summary(bare.us).c_str(),
      bench::summary(ratios).c_str(), bench::summary(more).c_str(), first,
      bench::quantile(with_handlers.us, 1), bench::summary(with_handlers.faults).c_str(),
      bench::summary(bare.faults).c_str(), calls);
  fflush(stdout);
}
