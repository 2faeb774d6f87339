// SPDX-License-Identifier: Apache-2.0
// The first calls after a fork come from several threads at once, in the child and in the parent.
// OpenBLAS makes a new pool once, not once for each thread (OpenBLAS issue 4981).
//
//   first_calls_together FORKS THREADS LIBRARY [PREFIX [SUFFIX]]
//
// A dot on standard output for each fork after which both have computed exactly.
#include <memory>
#include <thread>

#include "program.h"

namespace {

using namespace harm;

bool together(std::vector<std::unique_ptr<Product>>& products) {
  std::atomic<size_t> ready{0};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (auto& product : products) {
    threads.emplace_back([&, product = product.get()] {
      ++ready;
      while (ready < products.size()) std::this_thread::yield();
      for (int i = 0; i < 3; ++i) wrong += product->exact() ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return wrong == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) finish(2, "usage: first_calls_together FORKS THREADS LIBRARY [PREFIX [SUFFIX]]");
  limit_processor_time(300);
  const int forks = atoi(argv[1]);
  const int threads = atoi(argv[2]);
  const Blas blas(argv[3], argc > 4 ? argv[4] : "", argc > 5 ? argv[5] : "");
  std::vector<std::unique_ptr<Product>> products;
  for (int i = 0; i < threads; ++i) products.push_back(std::make_unique<Product>(blas, 300));
  if (!products[0]->exact()) finish(2, "the parent computes wrongly");
  for (int i = 0; i < forks; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(100);
      if (!together(products)) finish(1, "a child computes wrongly");
      _exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) {
      finish(1, "a child ended with wait status %d", status);
    }
    if (!together(products)) finish(1, "the parent computes wrongly after a fork");
    if (write(STDOUT_FILENO, ".", 1) != 1) finish(2, "write");
  }
  _exit(0);
}
