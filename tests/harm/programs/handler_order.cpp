// SPDX-License-Identifier: Apache-2.0
// Prepare handlers run newest first, parent and child handlers oldest first: the program's, those
// of libraries that come and go, and those that a child registers.
#include <string>

#include "harm.h"
#include "plugin.h"

namespace {

constexpr int kForks = 100;

std::string trace;

template <char Name>
void register_with(RegisterForkHandlers register_handlers) {
  const int result = register_handlers(
      [] {
        trace += {'p', Name};
      },
      [] {
        trace += {'r', Name};
      },
      [] {
        trace += {'c', Name};
      });
  harm::expect(result == 0, "pthread_atfork");
}

int plugins = 0;

void fork_and_compare(const char* prepare, const char* parent, const char* child) {
  for (int i = 0; i < kForks * harm::times; ++i) {
    trace.clear();
    const pid_t pid = harm::bounded_fork();
    if (pid == 0) {
      if (trace != std::string(prepare) + child) harm::fail(("in the child " + trace).c_str());
      // The grandchild registers one more, and forks.
      register_with<'Z'>(pthread_atfork);
      trace.clear();
      const pid_t grandchild = harm::bounded_fork();
      if (grandchild == 0) {
        if (trace != std::string("pZ") + prepare + child + "cZ") {
          harm::fail(("in the grandchild " + trace).c_str());
        }
        _exit(0);
      }
      harm::reap_well(grandchild);
      if (trace != std::string("pZ") + prepare + parent + "rZ") {
        harm::fail(("in the child that forks " + trace).c_str());
      }
      _exit(0);
    }
    harm::reap_well(pid);
    if (trace != std::string(prepare) + parent) harm::fail(("in the parent " + trace).c_str());
  }
  harm::say("prepare %s, parent %s, child %s", prepare, parent, child);
}

}  // namespace

void in_plugin_constructor(RegisterForkHandlers register_handlers) {
  ++plugins;
  if (plugins == 1) register_with<'a'>(register_handlers);
  if (plugins == 2) register_with<'b'>(register_handlers);
  if (plugins == 3) register_with<'c'>(register_handlers);
  if (plugins == 4) register_with<'d'>(register_handlers);
}
void in_plugin_destructor() {}

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 20L * kForks);
  register_with<'1'>(pthread_atfork);
  harm::load("plugin_a");
  register_with<'2'>(pthread_atfork);
  void* b = harm::load("plugin_b");
  harm::load("plugin_c");
  register_with<'3'>(pthread_atfork);
  fork_and_compare("p3pcpbp2pap1", "r1rar2rbrcr3", "c1cac2cbccc3");
  dlclose(b);
  fork_and_compare("p3pcp2pap1", "r1rar2rcr3", "c1cac2ccc3");
  harm::load("plugin_b");
  fork_and_compare("pdp3pcp2pap1", "r1rar2rcr3rd", "c1cac2ccc3cd");
  // Any of the three may be missing.
  pthread_atfork([] { trace += "p4"; }, nullptr, nullptr);
  pthread_atfork(
      nullptr, [] { trace += "r5"; }, nullptr);
  pthread_atfork(nullptr, nullptr, [] { trace += "c6"; });
  pthread_atfork(nullptr, nullptr, nullptr);
  fork_and_compare("p4pdp3pcp2pap1", "r1rar2rcr3rdr5", "c1cac2ccc3cdc6");
  return 0;
}
