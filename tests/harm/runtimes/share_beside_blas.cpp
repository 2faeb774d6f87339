// SPDX-License-Identifier: Apache-2.0
// A child's first region has the child's share of the processors, while a sibling computes. Nobody
// has started a region or asked for the number of threads before. An OpenBLAS on OpenMP that is
// loaded, and that has computed, makes no difference.
//
//   share_beside_blas [LIBRARY [PREFIX [SUFFIX]]]
#include <omp.h>

#include <optional>

#include "program.h"

namespace {

using namespace harm;

struct Shared {
  std::atomic<int> sibling_computes;
  std::atomic<int> sibling_may_end;
};

void compute_beside(Shared* shared) {
  const double end = now() + 20;
  for (long regions = 1; shared->sibling_may_end == 0 && now() < end; ++regions) {
#pragma omp parallel
    for (volatile int i = 0; i < 2000; i = i + 1) {
    }
    if (regions == 100) shared->sibling_computes = 1;
  }
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  limit_processor_time(60);
  need_two_processors();
  std::optional<Blas> blas;
  if (argc > 1) {
    blas.emplace(argv[1], argc > 2 ? argv[2] : "", argc > 3 ? argv[3] : "");
    Product product(*blas, 4);
    if (!product.exact()) finish(2, "the parent computes wrongly");
  }
  auto* shared = harm::shared<Shared>();
  const pid_t sibling = fork();
  if (sibling == 0) compute_beside(shared);
  const pid_t child = fork();
  if (child == 0) {
    if (!wait_until(20, [&] { return shared->sibling_computes != 0; })) finish(2, "no sibling");
    const int threads = members();
    if (threads >= omp_get_num_procs()) finish(1, "the child's region has %d threads", threads);
    _exit(0);
  }
  require_success(child, 30, "the child");
  shared->sibling_may_end = 1;
  require_success(sibling, 30, "the sibling");
}
