// SPDX-License-Identifier: Apache-2.0
// The number of threads that MKL's threading layer gets in children. The layer is a stand-in that
// has the two names by which the library recognises it, because MKL itself has about 200 MB.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>

#include "options.h"
#include "runtimes/runtime.h"
#include "sharing/fork_tree.h"
#include "sharing/processors.h"
#include "support.h"

namespace {

std::string is(int expected, int found) {
  return found == expected ? "" : std::to_string(found) + " threads";
}

}  // namespace

TEST_CASE("MKL's layer is told a child's share, the parent's and other objects' not", "[mkl]") {
  setenv("FORKSAFE_CHILD_THREADS", "auto", 1);
  forksafe::init_options();
  forksafe::start_fork_tree();
  void* layer = load(fixture_path("mkl_layer"));
  void* other = load(fixture_path("openmp"));
  const auto layer_threads = function_in<int (*)()>(layer, "mkl_serv_domain_get_max_threads");
  const auto set_threads = function_in<void (*)(int)>(other, "openmp_set_num_threads");
  const int all = forksafe::affinity_processors();
  set_threads(all);
  const auto& image = image_at(reinterpret_cast<const void*>(layer_threads));
  forksafe::mkl.see(image);
  forksafe::mkl.see(image);  // a second look
  CHECK(layer_threads() == all);

  CHECK(run_in_child([&] {
          forksafe::enter_fork_tree();
          return is(all, layer_threads());
        }) == "");
  CHECK(run_in_child([&]() -> std::string {
          forksafe::enter_fork_tree();
          forksafe::thread_share();
          const pid_t sibling = fork();
          if (sibling == 0) {
            forksafe::enter_fork_tree();
            _exit(layer_threads() == std::max(1, all / 2) ? 0 : 1);
          }
          int status = 0;
          waitpid(sibling, &status, 0);
          return is(0, status);
        }) == "");
  // Fewer than the share, as the program wants it.
  set_threads(1);
  CHECK(run_in_child([&] {
          forksafe::enter_fork_tree();
          return is(1, layer_threads());
        }) == "");
}
