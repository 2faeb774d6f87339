// SPDX-License-Identifier: Apache-2.0
// Forks late: in atexit handlers, in destructors of static and thread_local objects, of thread
// keys, and of libraries at dlclose and at the end. The child runs the rest of the handlers and
// destructors too.
#include "harm.h"
#include "plugin.h"

namespace {

pid_t program;

// Forks. Does nothing in a child, which runs the same handlers and destructors.
void fork_late(const char* where) {
  if (getpid() != program) return;
  const pid_t child = harm::bounded_fork();
  if (child == 0) {
    harm::watch(30);
    harm::fork_once();
    return;
  }
  harm::reap_well(child);
  harm::say("%s: forked, and the child came to its end", where);
}

struct ForksAtItsEnd {
  const char* where;
  ~ForksAtItsEnd() { fork_late(where); }
};

ForksAtItsEnd static_object = {"static object"};
thread_local ForksAtItsEnd thread_object = {"thread_local object"};

void* use_thread_object(void* key) {
  thread_object.where = "thread_local object of a thread";
  pthread_setspecific(*static_cast<pthread_key_t*>(key), &program);
  return nullptr;
}

}  // namespace

// plugin.cpp calls these two in the constructor and the destructor of a library.
void in_plugin_constructor(RegisterForkHandlers register_handlers) {
  register_handlers([] {}, [] {}, [] {});
  fork_late("constructor");
}
void in_plugin_destructor() { fork_late("destructor"); }

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 200);
  program = getpid();
  pthread_atfork([] {}, [] {}, [] {});
  atexit([] { fork_late("atexit handler"); });
  pthread_key_t key;
  pthread_key_create(&key, [](void*) { fork_late("key of a thread"); });
  for (int i = 0; i < 3; ++i) {
    pthread_join(harm::start_thread(use_thread_object, &key), nullptr);
    if (getpid() != program) _exit(1);  // a child of that thread has no main()
  }
  thread_object.where = "thread_local object of main()'s thread";
  dlclose(harm::load("plugin_a"));
  if (getpid() != program) return 0;
  harm::load("plugin_b");
  if (getpid() != program) return 0;
  at_quick_exit([] {
    fork_late("at_quick_exit handler");
    _exit(0);
  });
  const pid_t child = harm::bounded_fork();
  if (child == 0) {
    program = getpid();
    quick_exit(1);
  }
  harm::reap_well(child);
  return 0;
}
