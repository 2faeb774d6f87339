// SPDX-License-Identifier: Apache-2.0
// A library that registers fork handlers is loaded and unloaded again and again.
// Neither memory nor the time of a fork grows.
#include <malloc.h>

#include <algorithm>

#include "harm.h"
#include "plugin.h"

namespace {

constexpr int kCycles = 10000;
constexpr int kForks = 200;
constexpr long kMayGrow = 64 * 1024;  // bytes
constexpr double kMaySlow = 3;        // times, and
constexpr double kNoise = 100e-6;     // seconds

// mallinfo2 came with glibc 2.33; mallinfo counts in int, which is enough here.
struct Counts {
  size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};

long memory_in_use() {
  using Mallinfo2 = Counts (*)();
  if (const auto mallinfo2 = reinterpret_cast<Mallinfo2>(dlsym(RTLD_DEFAULT, "mallinfo2"))) {
    const Counts counts = mallinfo2();
    return static_cast<long>(counts.uordblks + counts.hblkhd);
  }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  const struct mallinfo counts = mallinfo();
#pragma GCC diagnostic pop
  return counts.uordblks + counts.hblkhd;
}

long pages_in_use() {
  FILE* file = fopen("/proc/self/statm", "r");
  long size = 0;
  harm::expect(file != nullptr && fscanf(file, "%ld", &size) == 1, "/proc/self/statm");
  fclose(file);
  return size;
}

// The fastest of many: other programs only make it slower.
double seconds_of_fork() {
  double best = 1e9;
  for (int i = 0; i < kForks; ++i) {
    const double start = harm::now();
    const pid_t child = harm::bounded_fork();
    if (child == 0) _exit(0);
    best = std::min(best, harm::now() - start);
    harm::reap_well(child);
  }
  return best;
}

void load_and_unload(int cycles) {
  for (int i = 0; i < cycles; ++i) dlclose(harm::load(i % 2 == 0 ? "plugin_a" : "plugin_b"));
}

}  // namespace

void in_plugin_constructor(RegisterForkHandlers register_handlers) {
  register_handlers([] {}, [] {}, [] {});
}
void in_plugin_destructor() {}

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 10L * kForks);
  load_and_unload(200);
  pages_in_use();
  const double fork_before = seconds_of_fork();
  const long memory_before = memory_in_use();
  const long pages_before = pages_in_use();
  load_and_unload(kCycles * harm::times);
  const long memory = memory_in_use() - memory_before;
  const long pages = pages_in_use() - pages_before;
  const double fork_after = seconds_of_fork();
  harm::say("malloc: %s", memory < kMayGrow ? "ok" : "grows");
  harm::say("address space: %s", pages * sysconf(_SC_PAGESIZE) < 4 * kMayGrow ? "ok" : "grows");
  harm::say("fork: %s", fork_after < kMaySlow * fork_before + kNoise ? "ok" : "slower");
  return memory < kMayGrow && fork_after < kMaySlow * fork_before + kNoise ? 0 : 1;
}
