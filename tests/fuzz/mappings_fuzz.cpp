// SPDX-License-Identifier: Apache-2.0
// The text of /proc/PID/maps.
#include "input.h"
#include "process/process.cpp"

using namespace forksafe::cli;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const Mapping& m : parse_mappings(std::string(data, data + size))) {
    if (m.path.find('\n') != std::string::npos) abort();
  }
  return 0;
}
