// SPDX-License-Identifier: Apache-2.0
// A setuid program, which secure_execution.sh starts as a user that is not root: it says whether it
// runs in secure execution, loads GNU OpenMP, which the library would log, and forks.
#include <sys/auxv.h>

#include "harm.h"

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 100);
  if (dlopen("libgomp.so.1", RTLD_NOW) == nullptr) harm::skip("no libgomp.so.1");
  for (int i = 0; i < 3; ++i) harm::fork_chain(3);
  harm::say("secure execution %lu, user %s", getauxval(AT_SECURE),
            geteuid() == 0 ? "root" : "other");
  return 0;
}
