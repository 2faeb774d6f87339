// SPDX-License-Identifier: Apache-2.0
// The quota of a control group. The input is the membership file (/proc/self/cgroup), a zero byte,
// and what each file of a limit holds.
#include <sys/stat.h>

#include "input.h"
#include "sharing/processors.cpp"

using namespace forksafe;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::File membership;
  static fuzz::File limit;
  static char folder[] = "/tmp/forksafe-fuzz-XXXXXX";
  static const bool made = [] {
    if (mkdtemp(folder) == nullptr) return false;
    const char* target = limit.path("", 0);
    // As seen from the root of the hierarchies v2, "cpu" and "cpu,cpuacct".
    for (const char* hierarchy : {"", "/cpu", "/cpu,cpuacct"}) {
      const std::string in = std::string(folder) + hierarchy;
      mkdir(in.c_str(), 0700);
      for (const char* file : {"/cpu.max", "/cpu.cfs_quota_us", "/cpu.cfs_period_us"}) {
        if (symlink(target, (in + file).c_str()) != 0) return false;
      }
    }
    atexit([] { fuzz::use(system((std::string("rm -rf ") + folder).c_str())); });
    return true;
  }();
  if (!made) abort();
  const auto* end = size != 0 ? static_cast<const uint8_t*>(memchr(data, 0, size)) : nullptr;
  const size_t first = end != nullptr ? static_cast<size_t>(end - data) : size;
  const size_t rest = end != nullptr ? size - first - 1 : 0;
  limit.path(data + size - rest, rest);
  const int result = quota_processors(membership.path(data, first), folder);
  if (result < 0 || result > 1 << 20) abort();
  return 0;
}
