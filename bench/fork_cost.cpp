// SPDX-License-Identifier: Apache-2.0
// What fork() costs the parent against _Fork(), which runs no handlers, in the same process with
// the same live pool.
//
//   fork_cost --blas=PATH [--prefix=scipy_] [--suffix=64_] [--pairs=300] [--threads=2]
//             [--resident-mb=0] [--flight=0] [--n=600] [--first=fork|_Fork]
//
// fork() and _Fork() take turns in pairs, and each pair swaps the order, so that what else the
// machine does falls on both. One line of JSON: the time within the call, the faults of the calling
// thread around it, and the ratio of each pair. The ratio falls as the process grows: copying its
// page tables is in both, the handlers' part is the same for all sizes.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
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

long faults() {
  rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt;
}

void measure(pid_t (*call)(), Series* series) {
  const long faults_before = faults();
  const double begin = bench::now_us();
  const pid_t child = call();
  const double end = bench::now_us();
  if (child == 0) _exit(0);
  const long faults_after = faults();
  if (child < 0) bench::fail(std::string("fork: ") + strerror(errno));
  series->us.push_back(end - begin);
  series->faults.push_back(static_cast<double>(faults_after - faults_before));
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) bench::fail("a child failed");
}

// A program that was at work before: as much memory as that, all touched.
void touch(int megabytes) {
  const size_t size = static_cast<size_t>(megabytes) << 20;
  auto* memory = static_cast<char*>(malloc(size));
  if (memory == nullptr) bench::fail("no memory");
  for (size_t i = 0; i < size; i += 4096) const_cast<volatile char*>(memory)[i] = 1;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const int pairs = options.number("pairs", 300);
  const int flight = options.number("flight", 0);
  const int n = options.number("n", 600);
  const bool fork_first = options.text("first", "fork") == "fork";

  // glibc 2.34 and later.
  const auto bare_fork = reinterpret_cast<pid_t (*)()>(dlsym(RTLD_DEFAULT, "_Fork"));
  if (bare_fork == nullptr) {
    fprintf(stderr, "this libc has no _Fork\n");
    return 77;
  }

  touch(options.number("resident-mb", 0));
  const Blas blas(options);
  blas.set_threads(options.number("threads", 2));
  Matrices data(400);  // stays, as the data of a program does
  data.multiply(blas);

  std::atomic<bool> stop{false};
  std::atomic<long> calls{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < flight; ++i) {
    workers.emplace_back([&] {
      Matrices matrices(n);
      while (!stop.load()) {
        matrices.multiply(blas);
        calls.fetch_add(1);
      }
    });
  }
  // Time for the pool to go to sleep, or for the calls to be well under way.
  bench::sleep_us(300000);

  Series with_handlers;
  Series bare;
  std::vector<double> ratios;
  for (int pair = 0; pair < pairs; ++pair) {
    for (int turn = 0; turn < 2; ++turn) {
      if ((pair + turn) % 2 == (fork_first ? 0 : 1)) {
        measure(fork, &with_handlers);
      } else {
        measure(bare_fork, &bare);
      }
      // Off the beat of the calls in flight.
      bench::sleep_us(flight != 0 ? 3000 + pair % 7 * 1000 : 1000);
    }
    ratios.push_back(with_handlers.us.back() / bare.us.back());
  }
  // What a first fork pays once does not belong to the later ones.
  const double first = with_handlers.us.front();
  if (pairs > 1) with_handlers.us.erase(with_handlers.us.begin());

  stop.store(true);
  for (std::thread& worker : workers) worker.join();
  printf("{\"fork_us\": %s, \"bare_us\": %s, \"ratio\": %s, \"ratio_of_medians\": %.4f, "
         "\"first_fork_us\": %.1f, \"slowest_fork_us\": %.1f, \"fork_faults\": %s, "
         "\"bare_faults\": %s, \"calls_in_flight\": %ld}\n",
         bench::summary(with_handlers.us).c_str(), bench::summary(bare.us).c_str(),
         bench::summary(ratios).c_str(),
         bench::quantile(with_handlers.us, 0.5) / bench::quantile(bare.us, 0.5), first,
         bench::quantile(with_handlers.us, 1), bench::summary(with_handlers.faults).c_str(),
         bench::summary(bare.faults).c_str(), calls.load());
}
