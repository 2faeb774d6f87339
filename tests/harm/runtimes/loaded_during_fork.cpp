// SPDX-License-Identifier: Apache-2.0
// A BLAS that is loaded while a fork is under way computes with all threads in that child, in its
// children and in later ones.
//
//   loaded_during_fork LIBRARY [PREFIX [SUFFIX]]
//
// Another thread loads the BLAS, and a prepare handler waits for that thread. So the BLAS is always
// loaded between the library's first and last step before the fork.
#include <pthread.h>

#include <thread>

#include "program.h"

namespace {

using namespace harm;

char** arguments;
int argument_count;
Blas* blas;

void load_once() {
  if (blas != nullptr) return;
  std::thread([] {
    blas = new Blas(arguments[1], argument_count > 2 ? arguments[2] : "",
                    argument_count > 3 ? arguments[3] : "");
  }).join();
}

void look(int wanted, const char* who) {
  Product product(*blas, 200);
  if (!product.exact()) finish(1, "%s computes wrongly", who);
  if (blas->threads() != wanted) {
    finish(1, "%s has %d threads instead of %d", who, blas->threads(), wanted);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) finish(2, "usage: loaded_during_fork LIBRARY [PREFIX [SUFFIX]]");
  limit_processor_time(60);
  arguments = argv;
  argument_count = argc;
  const int wanted = atoi(getenv("OMP_NUM_THREADS"));
  pthread_atfork(load_once, nullptr, nullptr);
  for (const char* who : {"the child", "the next child"}) {
    const pid_t child = fork();
    if (child == 0) {
      look(wanted, who);
      const pid_t grandchild = fork();
      if (grandchild == 0) {
        look(wanted, "its child");
        _exit(0);
      }
      require_success(grandchild, 10, "its child");
      _exit(0);
    }
    require_success(child, 20, who);
  }
  look(wanted, "the parent");
  _exit(0);
}
