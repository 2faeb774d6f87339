// SPDX-License-Identifier: Apache-2.0
#include "first_fork.h"

#include <unistd.h>

#include <atomic>
#include <cstring>

#include "descriptor.h"
#include "futex.h"
#include "number.h"
#include "report.h"

namespace forksafe {
namespace {

// Field 20 of /proc/self/stat; the second one is the name, in brackets, and may have blanks. 0 if
// it can't be read.
long count_threads() {
  const int fd = open_to_read("/proc/self/stat");
  if (fd < 0) return 0;
  char text[384];  // the first 20 fields need some 200
  const long size = read_from(fd, text, sizeof text - 1);
  close_descriptor(fd);
  text[size > 0 ? size : 0] = '\0';
  const char* field = strrchr(text, ')');
  for (int i = 2; field != nullptr && i < 20; ++i) field = strchr(field + 1, ' ');
  return field != nullptr ? parse_number(field + 1) : 0;
}

std::atomic<bool> reported{false};

}  // namespace

void report_first_fork() {
  if (!logging() || reported.load(std::memory_order_relaxed)) return;
  const KeepErrno keep;
  const long others = count_threads() - 1;
  if (others <= 0 || reported.exchange(true)) return;
  Line line;
  line.add("first fork beside ").add(others).add(others == 1 ? " other thread" : " other threads");
  line.add(": forksafe list ").add(static_cast<long>(getpid())).add(" tells whose they are");
  report(line.text());
}

}  // namespace forksafe
