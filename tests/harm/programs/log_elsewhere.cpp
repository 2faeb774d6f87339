// SPDX-License-Identifier: Apache-2.0
// A server that writes a title over its arguments and environment, as setproctitle does, and
// changes its working directory. FORKSAFE_LOG, a relative path, still means the file that it meant
// at the start. The program loads GNU OpenMP, so the library has something to log.
//
// Arguments: the folder to go to.
#include <string>

#include "harm.h"

extern char** environ;

namespace {

// The arguments and the environment lie behind each other in one block.
void overwrite(char** argv, const char* title) {
  char* begin = argv[0];
  char* end = begin;
  for (int i = 0; argv[i] != nullptr; ++i) end = argv[i] + strlen(argv[i]) + 1;
  size_t count = 0;
  for (; environ[count] != nullptr; ++count) end = environ[count] + strlen(environ[count]) + 1;
  auto** copy = new char*[count + 1];
  for (size_t i = 0; i < count; ++i) copy[i] = strdup(environ[i]);
  copy[count] = nullptr;
  environ = copy;
  for (char* p = begin; p < end - 1;) {
    for (const char* t = title; *t != '\0' && p < end - 1; ++t) *p++ = *t;
  }
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 100);
  const std::string folder = harm::mode;
  overwrite(argv, "server-worker-17-ready-");
  harm::expect(chdir(folder.c_str()) == 0, "chdir");
  harm::load_gnu_openmp();
  for (int i = 0; i < 3; ++i) harm::fork_chain(3);
  harm::say("3 workers ended well");
  return 0;
}
