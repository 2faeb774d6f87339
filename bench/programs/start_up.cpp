// SPDX-License-Identifier: Apache-2.0
// Measures how much time a preloaded library adds to a small program, compared with another
// preload.
//
//   start_up --preload=LIBRARY --against=EMPTY_LIBRARY [--program=/bin/true] [--pairs=1000]
//
// The two take turns in pairs, and each pair swaps the order. Prints one line of JSON. posix_spawn
// starts the program, so the time includes no other tool.
#include <spawn.h>
#include <sys/wait.h>

#include "bench.h"

namespace {

double run(const std::string& program, const std::string& preload) {
  std::string name = program;
  std::string variable = "LD_PRELOAD=" + preload;
  char* arguments[] = {name.data(), nullptr};
  char* environment[] = {variable.data(), nullptr};
  const double begin = bench::now_us();
  pid_t child;
  if (posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, environment) != 0) {
    bench::fail("can't run " + program);
  }
  int status;
  waitpid(child, &status, 0);
  const double end = bench::now_us();
  if (status != 0) bench::fail(program + " failed");
  return end - begin;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const std::string program = options.text("program", "/bin/true");
  const std::string library = options.text("preload", "");
  const std::string empty = options.text("against", "");
  const int pairs = options.number("pairs", 1000);
  for (int i = 0; i < 20; ++i) {  // fills the page cache
    run(program, library);
    run(program, empty);
  }
  std::vector<double> with;
  std::vector<double> without;
  std::vector<double> ratios;
  for (int pair = 0; pair < pairs; ++pair) {
    for (int turn = 0; turn < 2; ++turn) {
      if ((pair + turn) % 2 == 0) {
        with.push_back(run(program, library));
      } else {
        without.push_back(run(program, empty));
      }
    }
    ratios.push_back(with.back() / without.back());
  }
  printf("{\"with_us\": %s, \"without_us\": %s, \"ratio\": %s, \"ratio_of_medians\": %.4f}\n",
         bench::summary(with).c_str(), bench::summary(without).c_str(),
         bench::summary(ratios).c_str(),
         bench::quantile(with, 0.5) / bench::quantile(without, 0.5));
}
