// SPDX-License-Identifier: Apache-2.0
// A child that computes alone has all threads, also where GNU OpenMP binds threads to processors
// (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY): the mask of a bound thread is not the process's.
//
//   alone_in_child fresh|pool [LIBRARY [PREFIX [SUFFIX]]]
//
// With a BLAS, the child also computes with that.
#include <omp.h>

#include <cstring>
#include <optional>

#include "program.h"

using namespace harm;

int main(int argc, char** argv) {
  if (argc < 2) finish(2, "usage: alone_in_child fresh|pool [LIBRARY [PREFIX [SUFFIX]]]");
  limit_processor_time(60);
  std::optional<Blas> blas;
  std::optional<Product> product;
  int wanted_by_blas = 0;
  if (argc > 2) {
    blas.emplace(argv[2], argc > 3 ? argv[3] : "", argc > 4 ? argv[4] : "");
    product.emplace(*blas, 200);
    wanted_by_blas = blas->threads();
  }
  // omp_get_num_procs counts the processors of the process, even if this thread is bound to one.
  const int wanted = omp_get_num_procs();
  if (wanted < 2) finish(77, "needs two processors");
  if (strcmp(argv[1], "pool") == 0) {
    members();
    if (product && !product->exact()) finish(2, "the parent computes wrongly");
  }
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      for (int region = 0; region < 5; ++region) {
        if (product) {
          if (!product->exact()) finish(1, "the child computes wrongly");
          if (blas->threads() != wanted_by_blas) {
            finish(1, "BLAS has %d threads, %d in the parent", blas->threads(), wanted_by_blas);
          }
        }
        const int count = members();
        if (count != wanted) finish(1, "region %d has %d threads", region, count);
      }
      _exit(0);
    }
    require_success(child, 10, "the only child");
  }
}
