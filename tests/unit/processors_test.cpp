// SPDX-License-Identifier: Apache-2.0
// How many processors affinity and cgroups leave to a process. The tests write the cgroup files
// into a folder.
#include "sharing/processors.h"

#include <sched.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "support.h"

using forksafe::affinity_processors;
using forksafe::quota_processors;

namespace {

class Cgroups {
 public:
  explicit Cgroups(const std::string& membership) {
    write_file(folder_.file("membership"), membership);
  }
  void set(const std::string& file, const std::string& text) {
    const std::filesystem::path path = folder_.file("mount/" + file);
    std::filesystem::create_directories(path.parent_path());
    write_file(path, text);
  }
  int quota() const {
    return quota_processors(folder_.file("membership").c_str(), folder_.file("mount").c_str());
  }

 private:
  TemporaryDirectory folder_;
};

}  // namespace

TEST_CASE("as many processors as the affinity mask has", "[processors]") {
  cpu_set_t all;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  CHECK(affinity_processors() == CPU_COUNT(&all));
  CHECK(run_in_child([&]() -> std::string {
          int first = 0;
          while (!CPU_ISSET(first, &all)) ++first;
          cpu_set_t one;
          CPU_ZERO(&one);
          CPU_SET(first, &one);
          if (sched_setaffinity(0, sizeof one, &one) != 0) return "can't be pinned";
          return affinity_processors() == 1 ? "" : "not 1";
        }) == "");
}

TEST_CASE("no cgroup, or none with a limit, is no limit", "[processors]") {
  CHECK(quota_processors("/nonexistent", "/nonexistent") == 0);
  Cgroups none("0::/user.slice\n");
  CHECK(none.quota() == 0);
  none.set("user.slice/cpu.max", "max 100000\n");
  CHECK(none.quota() == 0);
  for (const char* text : {"", ":", "0:", "0::", "nonsense", "1:cpu\n", "\n\n::\n"}) {
    CAPTURE(text);
    CHECK(Cgroups(text).quota() == 0);
  }
}

TEST_CASE("a quota of cgroup v2 is rounded to the nearest, and one at least", "[processors]") {
  const struct {
    const char* text;
    int processors;
  } cases[] = {{"200000 100000\n", 2},  {"150000 100000\n", 2},
               {"140000 100000\n", 1},  {"10000 100000\n", 1},
               {"3200000 50000\n", 64}, {"100000", 0},
               {"-1 100000\n", 0},      {"100000 0\n", 0},
               {"junk\n", 0},           {"9223372036854775807 2\n", 0}};
  for (const auto& c : cases) {
    CAPTURE(c.text);
    Cgroups cgroups("0::/a\n");
    cgroups.set("a/cpu.max", c.text);
    CHECK(cgroups.quota() == c.processors);
  }
}

TEST_CASE("the tightest quota on the way to the root holds", "[processors]") {
  Cgroups cgroups("0::/slice/service/inner\n");
  cgroups.set("slice/service/inner/cpu.max", "max 100000\n");
  cgroups.set("slice/cpu.max", "300000 100000\n");
  CHECK(cgroups.quota() == 3);
  cgroups.set("slice/service/cpu.max", "400000 100000\n");
  CHECK(cgroups.quota() == 3);
  cgroups.set("slice/service/inner/cpu.max", "200000 100000\n");
  CHECK(cgroups.quota() == 2);
  // A sibling's does not.
  cgroups.set("slice/other/cpu.max", "100000 100000\n");
  CHECK(cgroups.quota() == 2);
  // As a container has it, whose group is not seen below its mount.
  cgroups.set("cpu.max", "100000 100000\n");
  CHECK(cgroups.quota() == 1);
}

TEST_CASE("a quota of cgroup v1, among the other hierarchies", "[processors]") {
  Cgroups cgroups("12:cpuset:/x\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/y\n0::/z\n");
  cgroups.set("cpuset/x/cpu.cfs_quota_us", "100000\n");
  cgroups.set("cpuset/x/cpu.cfs_period_us", "100000\n");
  cgroups.set("cpu,cpuacct/docker/1/cpu.cfs_quota_us", "-1\n");
  cgroups.set("cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
  CHECK(cgroups.quota() == 0);
  cgroups.set("cpu,cpuacct/docker/1/cpu.cfs_quota_us", "500000\n");
  CHECK(cgroups.quota() == 5);
}

TEST_CASE("a path that is too long names nothing", "[processors]") {
  std::string membership = "0::/";
  membership.append(3000, 'a').append("/b\n");
  Cgroups cgroups(membership);
  cgroups.set("cpu.max", "200000 100000\n");
  CHECK(cgroups.quota() == 2);
}
