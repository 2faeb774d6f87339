// SPDX-License-Identifier: Apache-2.0
// A child unloads a library that has registered fork handlers, and loads it again at the same
// address. It then has the handlers that it registers there, and each runs once.
#include "harm.h"
#include "plugin.h"

namespace {

int prepared = 0;

}  // namespace

void in_plugin_constructor(RegisterForkHandlers register_handlers) {
  register_handlers([] { ++prepared; }, nullptr, nullptr);
}
void in_plugin_destructor() {}

int main(int argc, char** argv) {
  harm::begin(argc, argv, 20, 20);
  void* const handle = harm::load("plugin_a");
  const pid_t child = harm::bounded_fork();
  if (child == 0) {
    harm::watch(10);
    const void* before = dlsym(handle, "plugin_is_needed");
    dlclose(handle);
    prepared = 0;
    harm::fork_once();
    harm::expect(prepared == 0, "a handler of a library that is not loaded has run");
    if (dlsym(harm::load("plugin_a"), "plugin_is_needed") != before) {
      harm::skip("it has another address now");
    }
    harm::fork_once();
    harm::say("prepared %d times", prepared);
    _exit(prepared == 1 ? 0 : 1);
  }
  const int status = harm::reap(child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == harm::kSkipped) _exit(harm::kSkipped);
  harm::expect(status == 0, "the child did not end well");
  return 0;
}
