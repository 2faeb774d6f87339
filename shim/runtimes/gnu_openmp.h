// SPDX-License-Identifier: Apache-2.0
// What GNU OpenMP's two files share.
#pragma once

namespace forksafe {

/// How many copies of it one process can have.
constexpr int kMaxOpenMpCopies = 16;

/// A copy's public functions about the number of threads, which belongs to the calling thread.
struct ThreadNumbers {
  int (*get_level)();
  int (*get_max_threads)();
  void (*set_num_threads)(int);
};

}  // namespace forksafe
