// SPDX-License-Identifier: Apache-2.0
// The copies of one runtime in this process.
#pragma once

#include <atomic>

namespace forksafe {

/// A list that only grows, since a copy stays loaded. Threads that are in the dynamic linker append
/// to it, one at a time. It takes no lock: a fork in another thread sees a record complete, or not
/// at all.
template <typename Copy, int kCapacity>
class Copies {
 public:
  /// The record of the next copy. Fill it in, then call add().
  Copy* next() { return &copies_[size()]; }
  void add() { count_.store(size() + 1, std::memory_order_release); }

  template <typename Step>
  void each(Step step) {
    const int count = count_.load(std::memory_order_acquire);
    for (int i = 0; i < count; ++i) step(&copies_[i]);
  }

  int size() const { return count_.load(std::memory_order_relaxed); }
  int index_of(const Copy* copy) const { return static_cast<int>(copy - copies_); }
  Copy& operator[](int index) { return copies_[index]; }

 private:
  Copy copies_[kCapacity] = {};
  std::atomic<int> count_{0};
};

}  // namespace forksafe
