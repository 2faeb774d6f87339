// SPDX-License-Identifier: Apache-2.0
// A core file, and the process in it. The input is the file.
#include "base/error.h"
#include "input.h"
#include "process/core.cpp"
#include "process/process.cpp"

using namespace forksafe::cli;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::File file;
  try {
    const auto core = std::make_shared<const Core>(file.path(data, size));
    for (const Core::Thread& thread : core->threads()) fuzz::use(core->system_call(thread.tid));
    const Process process(core);
    fuzz::use(process.name());
    fuzz::use(process.environment("PATH"));
    for (const Mapping& m : process.mappings()) fuzz::use(process.read_text(m.begin, 100));
  } catch (const Error&) {
  }
  return 0;
}
