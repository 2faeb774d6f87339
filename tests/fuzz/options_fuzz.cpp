// SPDX-License-Identifier: Apache-2.0
// The values of the options. The input is one value for each, with a zero byte between them.
#include <vector>

#include "input.h"
#include "options.cpp"
#include "report.cpp"

using namespace forksafe;

static std::vector<std::string> values;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  values.assign(1, "");
  for (size_t i = 0; i < size; ++i) {
    if (data[i] == 0) {
      values.emplace_back();
    } else {
      values.back().push_back(static_cast<char>(data[i]));
    }
  }
  static const char* const kNames[] = {"FORKSAFE", "FORKSAFE_WAIT_MS", "FORKSAFE_POOL",
                                       "FORKSAFE_CHILD_THREADS", "FORKSAFE_LOG"};
  const Options options = read_options(
      [](const char* name) -> const char* {
        for (size_t i = 0; i < 5; ++i) {
          if (strcmp(name, kNames[i]) == 0 && i < values.size()) return values[i].c_str();
        }
        return nullptr;
      },
      [](const char* line) {
        // One line, short enough that nothing of it was cut.
        if (strchr(line, '\n') != nullptr || strstr(line, "going on with") == nullptr) abort();
      });
  if (options.wait_ms < 0 || options.wait_ms > 3600 * 1000) abort();
  if (options.child_threads < Options::kAuto || options.child_threads > 4096) abort();
  if (options.log != nullptr) fuzz::use(absolute(options.log));
  return 0;
}
