// SPDX-License-Identifier: Apache-2.0
// A long chain of forks. At each fork, calls of one thread are in flight, and each has taken one of
// OpenBLAS's fixed number of buffers. A child must free these buffers, or a later generation has
// none left.
//
//   chain_of_forks GENERATIONS CALLS LIBRARY [PREFIX [SUFFIX]]
//
// Each generation ends as soon as it has forked. The first generation waits until the last one
// writes to a pipe.
#include <omp.h>
#include <poll.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "program.h"

int main(int argc, char** argv) {
  using namespace harm;
  if (argc < 4) finish(2, "usage: chain_of_forks GENERATIONS CALLS LIBRARY [PREFIX [SUFFIX]]");
  limit_processor_time(60);
  const int generations = atoi(argv[1]);
  const int calls = atoi(argv[2]);
  const Blas blas(argv[3], argc > 4 ? argv[4] : "", argc > 5 ? argv[5] : "");
  constexpr int kOrder = 120;
  omp_set_num_threads(1);
  Product product(blas, kOrder);
  if (!product.exact()) finish(2, "the parent computes wrongly");
  std::vector<std::unique_ptr<Product>> in_flight;
  for (int i = 0; i < calls; ++i) in_flight.push_back(std::make_unique<Product>(blas, kOrder));
  int ends[2];
  if (pipe(ends) != 0) finish(2, "pipe");
  auto* reached = shared<std::atomic<int>>();

  const pid_t first = getpid();
  for (int generation = 1; generation <= generations; ++generation) {
    alarm(60);  // not inherited: a generation that hangs ends by itself
    std::atomic<int> started{0};
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (const auto& call : in_flight) {
      threads.emplace_back([&, call = call.get()] {
        omp_set_num_threads(1);
        for (call->compute(), ++started; !stop;) call->compute();
      });
    }
    if (!wait_until(30, [&] { return started == calls; })) finish(1, "no calls in flight");
    const pid_t child = fork();
    if (child < 0) finish(2, "fork: %s", strerror(errno));
    if (child != 0) {
      if (getpid() != first) _exit(0);
      stop = true;
      for (std::thread& thread : threads) thread.join();
      close(ends[1]);
      // The pipe ends without a byte if the last process of the chain is gone.
      pollfd wait = {ends[0], POLLIN, 0};
      char word = 0;
      if (poll(&wait, 1, 50000) != 1) finish(1, "hung in generation %d", reached->load() + 1);
      if (read(ends[0], &word, 1) != 1) {
        finish(1, "generation %d ended before it had forked", reached->load() + 1);
      }
      waitpid(child, nullptr, 0);
      _exit(0);
    }
    // Never destroy the std::thread objects: their threads exist only in the parent.
    for (std::thread& thread : threads) new std::thread(std::move(thread));
    if (!product.exact()) finish(1, "generation %d computes wrongly", generation);
    *reached = generation;
  }
  if (write(ends[1], ".", 1) != 1) finish(2, "write");
  _exit(0);
}
