// SPDX-License-Identifier: Apache-2.0
// A program with AddressSanitizer. It forks and prints how the child ended. Then it runs its first
// argument in a shell. With a second argument it first writes past the end of its memory.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  auto* volatile memory = static_cast<char*>(malloc(8));
  const pid_t child = fork();
  if (child == 0) _exit(memory == nullptr ? 1 : 0);
  int status = 0;
  if (waitpid(child, &status, 0) != child) return 2;
  printf("child %d\n", status);
  fflush(stdout);
  if (argc > 2) memory[8] = 1;
  free(memory);
  return argc > 1 && system(argv[1]) != 0 ? 3 : 0;
}
