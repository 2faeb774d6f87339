// SPDX-License-Identifier: Apache-2.0
// Numbers to compute with: the same ones in each run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

using Matrix = std::vector<double>;

inline Matrix random_numbers(size_t count) {
  Matrix result(count);
  uint64_t state = 88172645463325252ULL;
  for (double& x : result) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    x = static_cast<double>(state >> 11) / 9007199254740992.0 - 0.5;
  }
  return result;
}
