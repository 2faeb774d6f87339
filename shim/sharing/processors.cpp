// SPDX-License-Identifier: Apache-2.0
#include "sharing/processors.h"

#include <sched.h>
#include <unistd.h>

#include <cstring>

#include "descriptor.h"
#include "futex.h"
#include "number.h"

namespace forksafe {
namespace {

constexpr size_t kPathSize = 1024;

// Reads the beginning of a small file, as much as fits, as text. False if it can't be read.
bool read_text(const char* path, char* text, size_t size) {
  const int fd = open_to_read(path);
  if (fd < 0) return false;
  size_t filled = 0;
  long got;
  while (filled + 1 < size && (got = read_from(fd, text + filled, size - 1 - filled)) > 0) {
    filled += static_cast<size_t>(got);
  }
  close_descriptor(fd);
  text[filled] = '\0';
  return true;
}

// A path that is put together from parts. A path that does not fit can't be read.
class Path {
 public:
  Path& add(const char* part) { return add(part, strlen(part)); }
  Path& add(const char* part, size_t length) {
    if (length >= kPathSize - size_) {
      fits_ = false;
      return *this;
    }
    memcpy(text_ + size_, part, length);
    size_ += length;
    text_[size_] = '\0';
    return *this;
  }
  bool read(char* text, size_t size) const { return fits_ && read_text(text_, text, size); }

 private:
  char text_[kPathSize] = {};
  size_t size_ = 0;
  bool fits_ = true;
};

int to_processors(long quota, long period) {
  if (quota <= 0 || period <= 0) return 0;
  const long nearest = quota / period + (quota % period >= period - period / 2 ? 1 : 0);
  return nearest < 1 ? 1 : nearest > 1 << 20 ? 0 : static_cast<int>(nearest);
}

void lower(int* least, int limit) {
  if (limit != 0 && (*least == 0 || limit < *least)) *least = limit;
}

// The limit that the folder `mount`/`hierarchy``group` sets; 0 if it sets none.
int limit_of(const char* mount, const char* hierarchy, size_t hierarchy_length, const char* group,
             size_t group_length) {
  char text[64];
  const auto read_file = [&](const char* name) {
    Path path;
    path.add(mount).add("/").add(hierarchy, hierarchy_length).add(group, group_length).add("/");
    return path.add(name).read(text, sizeof text);
  };
  if (hierarchy_length == 0) {  // v2: "QUOTA PERIOD" or "max PERIOD"
    if (!read_file("cpu.max")) return 0;
    const char* end = text;
    const long quota = parse_number(text, &end);
    return to_processors(quota, parse_number(end));
  }
  if (!read_file("cpu.cfs_quota_us")) return 0;  // -1: none
  const long quota = parse_number(text);
  if (!read_file("cpu.cfs_period_us")) return 0;
  return to_processors(quota, parse_number(text));
}

// Whether the comma-separated controllers of a v1 hierarchy have "cpu" among them.
bool has_cpu(const char* controllers, const char* end) {
  while (controllers < end) {
    const auto* comma =
        static_cast<const char*>(memchr(controllers, ',', static_cast<size_t>(end - controllers)));
    if (comma == nullptr) comma = end;
    if (comma - controllers == 3 && memcmp(controllers, "cpu", 3) == 0) return true;
    controllers = comma + 1;
  }
  return false;
}

}  // namespace

int affinity_processors() {
  const KeepErrno keep;
  unsigned long mask[128] = {};  // 8192 processors
  auto* set = reinterpret_cast<cpu_set_t*>(mask);
  const int count = sched_getaffinity(0, sizeof mask, set) == 0 ? CPU_COUNT_S(sizeof mask, set) : 0;
  return count > 0 ? count : 1;
}

// Each line of the membership file is "ID:CONTROLLERS:/GROUP", with no controllers for v2
// (cgroups(7)). The limits of all groups from there to the root hold. In a container the group may
// be invisible below the mount; the root never is.
int quota_processors(const char* membership, const char* mount) {
  const KeepErrno keep;
  char text[4096];
  if (!read_text(membership, text, sizeof text)) return 0;
  int least = 0;
  for (char* line = text; line != nullptr && *line != '\0';) {
    char* const next = strchr(line, '\n');
    if (next != nullptr) *next = '\0';
    const char* controllers = strchr(line, ':');
    const char* group = controllers != nullptr ? strchr(++controllers, ':') : nullptr;
    if (group != nullptr && (group == controllers || has_cpu(controllers, group))) {
      const auto hierarchy_length = static_cast<size_t>(group - controllers);
      ++group;
      for (size_t length = strlen(group);; --length) {
        // Stop at each slash, so at each group on the way up, and at the root.
        if (length != 0 && group[length] != '\0' && group[length] != '/') continue;
        lower(&least, limit_of(mount, controllers, hierarchy_length, group, length));
        if (length == 0) break;
      }
    }
    line = next != nullptr ? next + 1 : nullptr;
  }
  return least;
}

}  // namespace forksafe
