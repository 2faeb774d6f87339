// SPDX-License-Identifier: Apache-2.0
// FORKSAFE_CHILD_THREADS=N holds in every thread of a child, and in children only.
//
//   child_threads N fresh|pool
#include <omp.h>

#include <cstring>
#include <thread>

#include "program.h"

namespace {

using namespace harm;

void look(int wanted, const char* who) {
  const int own = members();
  if (own != wanted) finish(1, "%s: a region of %d threads instead of %d", who, own, wanted);
  int others = 0;
  std::thread([&] { others = members(); }).join();
  if (others != wanted) {
    finish(1, "a new thread of %s: a region of %d threads instead of %d", who, others, wanted);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) finish(2, "usage: child_threads N fresh|pool");
  limit_processor_time(60);
  const int wanted = atoi(argv[1]);
  const int in_parent = omp_get_max_threads();
  if (strcmp(argv[2], "pool") == 0) members();
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      look(wanted, "a child");
      const pid_t grandchild = fork();
      if (grandchild == 0) {
        look(wanted, "a grandchild");
        _exit(0);
      }
      require_success(grandchild, 5, "a grandchild");
      _exit(0);
    }
    require_success(child, 10, "a child");
    look(in_parent, "the parent");
  }
}
