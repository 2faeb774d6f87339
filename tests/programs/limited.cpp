// SPDX-License-Identifier: Apache-2.0
// Executes a command under a limit: limited LIMIT COMMAND [ARGUMENT...]. limits.h has the limits.
//
// It is not preloaded itself: FORKSAFE_TEST_PRELOAD becomes LD_PRELOAD of the command.
#include "limits.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: limited LIMIT COMMAND [ARGUMENT...]\n");
    return 2;
  }
  const char* preload = getenv("FORKSAFE_TEST_PRELOAD");
  if (preload != nullptr) setenv("LD_PRELOAD", preload, 1);
  limits::set(argv[1]);
  execv(argv[2], argv + 2);
  limits::fail(77, argv[1]);
}
