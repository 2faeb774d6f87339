// SPDX-License-Identifier: Apache-2.0
// What the library shows to programs that read the process from outside, such as `forksafe list`:
// one exported variable, forksafe_state. New fields are only ever added at its end.
#pragma once

#include <cstdint>

namespace forksafe {

/// How many modules can be adopted in one process. Further ones are left as they are, and the log
/// says so.
constexpr int kMaxModules = 16;

struct State {
  static constexpr uint32_t kVersion = 1;
  struct Module {
    uint64_t base;            ///< of the adopted object; 0 where this entry is not used
    uint32_t one_thread;      ///< 1 in a child that could not be made whole, and in its children
    uint32_t degraded_forks;  ///< of this process and its ancestors: forks with such a child
  };

  uint32_t version = kVersion;
  uint32_t enabled = 0;  ///< 0 under FORKSAFE=0, and where the library was dlopened
  Module modules[kMaxModules] = {};
};

}  // namespace forksafe

extern "C" __attribute__((visibility("default"))) forksafe::State forksafe_state;
