// SPDX-License-Identifier: Apache-2.0
// A library that has OpenBLAS linked in keeps what is its own: in children the content of its
// mappings and the kinds of its mutexes, and its fork handlers, each of which runs once at each
// fork.
//
//   own_memory memory|handlers
#include <cstring>

#include "openblas_inside.h"
#include "program.h"

namespace {

using namespace harm;

constexpr int kOrder = 200;
constexpr int kForks = 3;

bool computes() {
  const std::vector<double> a(kOrder * kOrder, 1.0);
  std::vector<double> c(a.size(), -1.0);
  inside_multiply(kOrder, a.data(), c.data());
  for (const double x : c) {
    if (x != kOrder) return false;
  }
  return true;
}

void show_unless(bool right, const char* who, const handler_counts& c) {
  if (!right) {
    finish(1, "%s: prepare ran %d times, parent %d, child %d", who, c.prepare, c.parent, c.child);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) finish(2, "usage: own_memory memory|handlers");
  limit_processor_time(60);
  if (strstr(inside_config(), "OpenBLAS") == nullptr) finish(2, "no OpenBLAS inside");
  if (!inside_map()) finish(2, "mmap");
  if (!inside_locks_twice()) finish(2, "the parent can't lock a recursive mutex twice");
  const bool handlers = strcmp(argv[1], "handlers") == 0;
  if (handlers) inside_register();
  if (!computes()) finish(2, "the parent computes wrongly");
  for (int fork_number = 1; fork_number <= kForks; ++fork_number) {
    const pid_t child = fork();
    const handler_counts c = inside_counts();
    if (child == 0) {
      if (!inside_mappings_hold()) finish(1, "the child's mappings have lost their content");
      if (!inside_locks_twice()) finish(1, "the child's recursive mutex is recursive no more");
      if (handlers) {
        show_unless(c.prepare == fork_number && c.parent == fork_number - 1 && c.child == 1,
                    "the child", c);
      }
      if (!computes()) finish(1, "the child computes wrongly");
      _exit(0);
    }
    if (handlers) {
      show_unless(c.prepare == fork_number && c.parent == fork_number && c.child == 0, "the parent",
                  c);
    }
    require_success(child, 20, "a child");
    if (!inside_mappings_hold()) finish(1, "the parent's mappings have lost their content");
    if (!computes()) finish(1, "the parent computes wrongly after a fork");
  }
}
