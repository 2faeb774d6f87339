// SPDX-License-Identifier: Apache-2.0
// A child registers its fork handlers once more, on purpose. A handler that is registered twice
// runs twice, and the second registration comes before all older ones.
#include <string>

#include "harm.h"

namespace {

std::string order;

void stop() { order += 's'; }
void go() { order += 'g'; }
void lock() { order += 'l'; }

void register_stop() { pthread_atfork(stop, go, go); }

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 20, 20);
  register_stop();
  pthread_atfork(lock, nullptr, nullptr);
  const pid_t child = harm::bounded_fork();
  if (child == 0) {
    register_stop();
    order.clear();
    harm::fork_once();
    harm::say("the handlers of the child ran as %s", order.c_str());
    _exit(order == "slsgg" ? 0 : 1);
  }
  harm::reap_well(child);
  return 0;
}
