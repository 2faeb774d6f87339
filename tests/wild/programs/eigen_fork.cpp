// SPDX-License-Identifier: Apache-2.0
// Forks after Eigen has multiplied on OpenMP.
#include <sys/wait.h>
#include <unistd.h>

#include <Eigen/Dense>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

// Asks run_case.py to inspect this process, and waits until it has.
static void parent_is_ready() {
  const std::string request = std::getenv("WILD_FOLDER") + ("/parent-" + std::to_string(getpid()));
  std::ofstream(request).close();
  while (access(request.c_str(), F_OK) == 0) {
    usleep(10000);
  }
}

int main() {
  const Eigen::MatrixXd a = Eigen::MatrixXd::Random(400, 400);
  const Eigen::MatrixXd expected = a * a;
  const auto same = [&] { return Eigen::MatrixXd(a * a) == expected; };
  parent_is_ready();
  for (int i = 0; i < std::atoi(std::getenv("WILD_FORKS")); ++i) {
    const pid_t child = fork();
    if (child == 0) {
      _exit(same() ? 0 : 3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) {
      std::fprintf(stderr, "a child ended with wait status %#x\n", status);
      return 1;
    }
    std::putchar('.');
    std::fflush(stdout);
  }
  if (!same()) {
    std::fputs("after the forks, the parent's product differs\n", stderr);
    return 1;
  }
}
