// SPDX-License-Identifier: Apache-2.0
// Gate and Lock with threads. These tests also run under TSan, so all assertions are in the main
// thread.
#include "doors/gate.h"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <new>
#include <thread>
#include <vector>

#include "lease.h"

using forksafe::Gate;
using forksafe::Lock;
using forksafe::monotonic_ns;

namespace {

constexpr int64_t kMillisecond = 1000000;
constexpr int64_t kLong = 20000 * kMillisecond;  // far beyond what any step takes

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

bool empty_now(Gate* gate) { return gate->wait_empty(0); }

// As a door does. False when the gate was shut for longer than the patience.
bool come_in(Gate* gate, uint8_t* depth, int64_t patience_ns) {
  return gate->enter(depth) || gate->wait_outside(patience_ns);
}

void wait_for(const std::atomic<bool>& flag) {
  while (!flag) sleep_ms(1);
}

}  // namespace

TEST_CASE("a gate is empty when as many have left as came in", "[gate]") {
  Gate gate;
  uint8_t first = 0, second = 0;
  CHECK(empty_now(&gate));
  come_in(&gate, &first, kLong);
  come_in(&gate, &second, kLong);
  gate.leave(&first);
  CHECK_FALSE(empty_now(&gate));
  gate.leave(&second);
  CHECK(empty_now(&gate));
  CHECK(first == 0);
  CHECK(second == 0);
}

TEST_CASE("a leave without an enter does nothing", "[gate]") {
  Gate gate;
  uint8_t inside = 0, outside = 0;
  come_in(&gate, &inside, kLong);
  gate.leave(&outside);
  CHECK(outside == 0);
  CHECK_FALSE(empty_now(&gate));
  gate.leave(&inside);
  gate.leave(&inside);
  CHECK(empty_now(&gate));
  come_in(&gate, &inside, kLong);
  CHECK_FALSE(empty_now(&gate));
}

TEST_CASE("a nested entry does not wait at a closed gate", "[gate]") {
  Gate gate;
  uint8_t depth = 0;
  come_in(&gate, &depth, kLong);
  gate.shut();
  CHECK(gate.closed());
  const int64_t start = monotonic_ns();
  come_in(&gate, &depth, kLong);
  CHECK(monotonic_ns() - start < kLong / 2);
  CHECK(depth == 2);
  gate.leave(&depth);
  CHECK_FALSE(empty_now(&gate));
  gate.leave(&depth);
  CHECK(empty_now(&gate));
}

TEST_CASE("a thread may come in more often than its depth can count", "[gate]") {
  Gate gate;
  uint8_t depth = 0;
  for (int i = 0; i < 300; ++i) come_in(&gate, &depth, kLong);
  CHECK_FALSE(empty_now(&gate));
  for (int i = 0; i < 300; ++i) gate.leave(&depth);
  CHECK(depth == 0);
  CHECK(empty_now(&gate));
}

TEST_CASE("a thread that waits for an empty gate gives up when its patience ends", "[gate]") {
  Gate gate;
  uint8_t depth = 0;
  come_in(&gate, &depth, kLong);
  gate.shut();
  const int64_t start = monotonic_ns();
  CHECK_FALSE(gate.wait_empty(30 * kMillisecond));
  CHECK(monotonic_ns() - start >= 30 * kMillisecond);
}

TEST_CASE("the last thread that leaves wakes the fork that waits for an empty gate", "[gate]") {
  Gate gate;
  std::atomic<int> inside{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      uint8_t depth = 0;
      come_in(&gate, &depth, kLong);
      ++inside;
      wait_for(go);
      sleep_ms(10 * i);
      gate.leave(&depth);
    });
  }
  while (inside != 3) sleep_ms(1);
  gate.shut();
  go = true;
  const int64_t start = monotonic_ns();
  CHECK(gate.wait_empty(kLong));
  CHECK(monotonic_ns() - start < kLong / 2);
  for (auto& t : threads) t.join();
}

TEST_CASE("a newcomer at a shut gate waits outside until it is opened", "[gate]") {
  Gate gate;
  gate.shut();
  std::atomic<bool> started{false}, entered{false};
  std::thread thread([&] {
    uint8_t depth = 0;
    started = true;
    come_in(&gate, &depth, kLong);
    entered = true;
    gate.leave(&depth);
  });
  wait_for(started);
  sleep_ms(30);
  CHECK_FALSE(entered);
  CHECK(gate.wait_empty(kLong));
  gate.open();
  CHECK_FALSE(gate.closed());
  const int64_t start = monotonic_ns();
  thread.join();
  CHECK(entered);
  CHECK(monotonic_ns() - start < kLong / 2);
  CHECK(empty_now(&gate));
}

TEST_CASE("a newcomer learns that a gate was held for longer than its patience", "[gate]") {
  Gate gate;
  gate.hold();
  uint8_t depth = 0;
  const int64_t start = monotonic_ns();
  CHECK_FALSE(come_in(&gate, &depth, 30 * kMillisecond));
  CHECK(monotonic_ns() - start >= 30 * kMillisecond);
  CHECK(gate.closed());
  CHECK_FALSE(empty_now(&gate));
  gate.leave(&depth);
  CHECK(empty_now(&gate));
}

TEST_CASE("a shut gate that a fork has left behind is opened when patience ends", "[gate]") {
  Gate gate;
  gate.shut();
  uint8_t depth = 0;
  const int64_t start = monotonic_ns();
  CHECK(come_in(&gate, &depth, 30 * kMillisecond));
  CHECK(monotonic_ns() - start >= 30 * kMillisecond);
  CHECK_FALSE(gate.closed());
  gate.leave(&depth);
  CHECK(empty_now(&gate));
}

TEST_CASE("a newcomer that has waited long enough opens a lent gate for all", "[gate]") {
  Gate gate;
  gate.shut();
  std::atomic<int> inside{0};
  std::atomic<bool> in_time{true};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      uint8_t depth = 0;
      if (!come_in(&gate, &depth, kLong)) in_time = false;
      ++inside;
      gate.leave(&depth);
    });
  }
  sleep_ms(30);
  CHECK(inside == 0);
  const int64_t start = monotonic_ns();
  gate.lend();
  for (auto& t : threads) t.join();
  CHECK(monotonic_ns() - start >= Gate::kLentPatienceNs);
  CHECK(monotonic_ns() - start < kLong / 2);
  CHECK(in_time);
  CHECK_FALSE(gate.closed());
  CHECK(empty_now(&gate));

  // The next newcomer does not wait, and the fork can shut the gate again.
  uint8_t depth = 0;
  CHECK(gate.enter(&depth));
  gate.shut();
  CHECK_FALSE(empty_now(&gate));
  gate.leave(&depth);
  CHECK(empty_now(&gate));
}

TEST_CASE("a newcomer at a lent gate goes on waiting when it is shut", "[gate]") {
  Gate gate;
  gate.shut();
  gate.lend();
  std::atomic<bool> started{false}, entered{false};
  std::thread thread([&] {
    uint8_t depth = 0;
    started = true;
    come_in(&gate, &depth, kLong);
    entered = true;
    gate.leave(&depth);
  });
  wait_for(started);
  gate.shut();
  sleep_ms(static_cast<int>(Gate::kLentPatienceNs / kMillisecond) + 50);
  CHECK_FALSE(entered);
  gate.open();
  thread.join();
  CHECK(empty_now(&gate));
}

TEST_CASE("a held gate is neither shut nor lent by another fork", "[gate]") {
  Gate gate;
  gate.shut();
  gate.hold();
  gate.shut();
  CHECK(gate.held());
  gate.lend();
  CHECK(gate.held());
  gate.take_back();
  CHECK(gate.held());
  gate.open();
  CHECK_FALSE(gate.closed());
  gate.lend();
  CHECK_FALSE(gate.closed());
}

TEST_CASE("a lent gate is taken back, a shut one is not", "[gate]") {
  Gate gate;
  gate.shut();
  gate.take_back();
  CHECK(gate.closed());
  gate.lend();
  gate.take_back();
  CHECK_FALSE(gate.closed());
}

TEST_CASE("the last thread that leaves wakes a fork even if the gate was opened meanwhile",
          "[gate]") {
  Gate gate;
  uint8_t depth = 0;
  come_in(&gate, &depth, kLong);
  gate.shut();
  std::atomic<bool> empty{false};
  std::thread fork([&] { empty = gate.wait_empty(kLong); });
  sleep_ms(20);
  gate.open();
  const int64_t start = monotonic_ns();
  gate.leave(&depth);
  fork.join();
  CHECK(empty);
  CHECK(monotonic_ns() - start < kLong / 2);
}

TEST_CASE("waiting keeps errno", "[gate]") {
  Gate gate;
  gate.shut();
  uint8_t depth = 0;
  errno = 4711;
  come_in(&gate, &depth, 5 * kMillisecond);
  CHECK(errno == 4711);
  CHECK_FALSE(gate.wait_empty(5 * kMillisecond));
  CHECK(errno == 4711);
}

TEST_CASE("a gate that starts over counts the calling thread alone", "[gate]") {
  Gate gate;
  uint8_t own = 0, other = 0;
  come_in(&gate, &own, kLong);
  come_in(&gate, &own, kLong);
  come_in(&gate, &other, kLong);
  gate.shut();
  gate.reset(own);
  CHECK_FALSE(gate.closed());
  CHECK_FALSE(empty_now(&gate));
  gate.leave(&own);
  gate.leave(&own);
  CHECK(empty_now(&gate));

  come_in(&gate, &other, kLong);  // nested: `other` is 1 still
  gate.reset(0);
  CHECK(empty_now(&gate));
}

TEST_CASE("nobody is inside while the gate is closed and empty", "[gate]") {
  // Plain variables, which could be torn. TSan reports a race if the gate does not order the
  // accesses.
  Gate gate;
  std::array<long, 3> counts = {};
  std::array<bool, 3> torn = {};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < counts.size(); ++i) {
    threads.emplace_back([&, i] {
      uint8_t depth = 0;
      while (!stop) {
        come_in(&gate, &depth, kLong);
        torn[i] = true;
        ++counts[i];
        torn[i] = false;
        gate.leave(&depth);
      }
    });
  }
  bool all_empty = true, any_torn = false;
  for (int round = 0; round < 2000; ++round) {
    gate.shut();
    all_empty = gate.wait_empty(kLong) && all_empty;
    for (const bool t : torn) any_torn = any_torn || t;
    if (round % 3 == 0) {
      gate.lend();
      gate.shut();
      all_empty = gate.wait_empty(kLong) && all_empty;
    }
    const std::array<long, 3> before = counts;
    if (round % 100 == 0) std::this_thread::yield();
    if (counts != before) any_torn = true;
    gate.open();
  }
  stop = true;
  for (auto& t : threads) t.join();
  CHECK(all_empty);
  CHECK_FALSE(any_torn);
  CHECK(empty_now(&gate));
}

TEST_CASE("a lock lets one thread in at a time", "[gate]") {
  Lock lock;
  long count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 20000; ++k) {
        lock.lock();
        ++count;
        lock.unlock();
      }
    });
  }
  for (auto& t : threads) t.join();
  CHECK(count == 80000);
}

TEST_CASE("a lock's waiter sleeps until the holder gives it back", "[gate]") {
  Lock lock;
  std::atomic<bool> started{false}, taken{false};
  lock.lock();
  std::thread thread([&] {
    started = true;
    lock.lock();
    taken = true;
    lock.unlock();
  });
  wait_for(started);
  sleep_ms(20);
  CHECK_FALSE(taken);
  lock.unlock();
  thread.join();
  CHECK(taken);
}

TEST_CASE("a held lock is free after reset", "[gate]") {
  Lock lock;
  lock.lock();
  lock.reset();
  lock.lock();  // hangs if it were not
  lock.unlock();
  SUCCEED();
}

// The write would be a page fault in every child, and a race in valgrind's eyes.
TEST_CASE("a child does not write to a lease that nobody has", "[gate]") {
  void* page = mmap(nullptr, forksafe::page_size(), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(page != MAP_FAILED);
  auto* lease = new (page) forksafe::Lease;
  REQUIRE(mprotect(page, forksafe::page_size(), PROT_READ) == 0);
  lease->reset();  // a fault ends the test
  CHECK(lease->is_free());
  REQUIRE(mprotect(page, forksafe::page_size(), PROT_READ | PROT_WRITE) == 0);
  forksafe::Lease::Patience patience = {kLong, kLong};
  REQUIRE(lease->try_take(8, &patience));
  lease->reset();
  CHECK(lease->is_free());
  munmap(page, forksafe::page_size());
}
