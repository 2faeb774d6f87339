// SPDX-License-Identifier: Apache-2.0
// What shim/futex.h is replaced by in interleavings_test (FORKSAFE_PRIMITIVES): the same names, led
// to the scheduler in scheduler.h. Each operation on an Atomic is a step, before which another
// thread of the model may run.
//
// The model is sequentially consistent: it can't find a memory order that is too weak.
#pragma once

#include <atomic>
#include <cstdint>

namespace forksafe {

/// Another thread of the model may run here.
void model_step();

/// std::atomic for one OS thread, in which the threads of the model take turns.
template <typename T>
class Atomic {
 public:
  constexpr Atomic(T value = T()) : value_(value) {}
  Atomic(const Atomic&) = delete;
  Atomic& operator=(const Atomic&) = delete;

  T load(std::memory_order = std::memory_order_seq_cst) const {
    model_step();
    return value_;
  }
  void store(T value, std::memory_order = std::memory_order_seq_cst) {
    model_step();
    value_ = value;
  }
  T exchange(T value, std::memory_order = std::memory_order_seq_cst) {
    model_step();
    const T before = value_;
    value_ = value;
    return before;
  }
  bool compare_exchange_strong(T& expected, T value,
                               std::memory_order = std::memory_order_seq_cst) {
    model_step();
    if (value_ == expected) {
      value_ = value;
      return true;
    }
    expected = value_;
    return false;
  }
  T fetch_add(T value, std::memory_order = std::memory_order_seq_cst) {
    return exchange_sum(value);
  }
  T fetch_sub(T value, std::memory_order = std::memory_order_seq_cst) {
    return exchange_sum(static_cast<T>(0 - value));
  }

  /// For the scheduler: no step.
  T peek() const { return value_; }

 private:
  T exchange_sum(T value) {
    model_step();
    const T before = value_;
    value_ = static_cast<T>(value_ + value);
    return before;
  }

  T value_;
};

int64_t monotonic_ns();
void futex_wait_until(Atomic<uint32_t>* word, uint32_t value, int64_t deadline);
void futex_wake_all(Atomic<uint32_t>* word);
void set_signal_mask(uint64_t mask);
void add_to_signal_mask(uint64_t signals, uint64_t* old);
void pass_memory_map(void* address);

}  // namespace forksafe

/// The library has one ThreadState for each OS thread. Here the variable that doors/module.h
/// declares becomes a pointer, which the scheduler sets at each switch.
#define thread_state (*model_thread_state)
