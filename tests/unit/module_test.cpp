// SPDX-License-Identifier: Apache-2.0
// The sets of addresses that a module uses. Threads add to them while other threads read them.
#include "doors/module.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <set>
#include <thread>
#include <vector>

using forksafe::AddressSet;
using forksafe::Door;
using forksafe::DoorSet;

namespace {

const void* address(size_t i) { return reinterpret_cast<const void*>(0x70000000 + i * 40); }

std::unique_ptr<AddressSet> make_set() {
  auto set = std::make_unique<AddressSet>();
  set->place();
  return set;
}

std::multiset<const void*> members(const AddressSet& set) {
  std::multiset<const void*> result;
  set.each([&](const void* a) { result.insert(a); });
  return result;
}

}  // namespace

TEST_CASE("an empty set has no members", "[module]") {
  const auto set = make_set();
  CHECK(set->size() == 0);
  CHECK(members(*set).empty());
}

TEST_CASE("an address that is added twice is a member once", "[module]") {
  const auto set = make_set();
  CHECK(set->insert(address(1)));
  CHECK(set->insert(address(2)));
  CHECK(set->insert(address(1)));
  CHECK(set->size() == 2);
  CHECK(members(*set) == std::multiset<const void*>{address(1), address(2)});
}

TEST_CASE("a full set refuses new addresses and knows the old ones", "[module]") {
  const auto set = make_set();
  std::multiset<const void*> expected;
  bool all = true;
  for (size_t i = 0; i < AddressSet::kCapacity; ++i) {
    all = set->insert(address(i)) && all;
    expected.insert(address(i));
  }
  CHECK(all);
  CHECK(set->size() == AddressSet::kCapacity);
  CHECK_FALSE(set->insert(address(AddressSet::kCapacity)));
  CHECK(set->insert(address(0)));
  CHECK(set->insert(address(AddressSet::kCapacity - 1)));
  CHECK(set->size() == AddressSet::kCapacity);
  CHECK(members(*set) == expected);
}

TEST_CASE("threads that add the same addresses make each a member once", "[module]") {
  constexpr size_t kThreads = 4, kAddresses = 900;
  for (int round = 0; round < 20; ++round) {
    const auto set = make_set();
    std::atomic<size_t> ready{0};
    std::atomic<bool> all{true};
    std::vector<std::thread> threads;
    for (size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        ++ready;
        while (ready != kThreads) std::this_thread::yield();
        for (size_t i = 0; i < kAddresses; ++i) {
          // From both ends, so that they meet.
          const size_t k = t % 2 == 0 ? i : kAddresses - 1 - i;
          if (!set->insert(address(k))) all = false;
        }
      });
    }
    for (auto& t : threads) t.join();
    std::multiset<const void*> expected;
    for (size_t i = 0; i < kAddresses; ++i) expected.insert(address(i));
    REQUIRE(all);
    REQUIRE(set->size() == kAddresses);
    REQUIRE(members(*set) == expected);
  }
}

TEST_CASE("threads that overfill a set are refused exactly what has no room", "[module]") {
  constexpr size_t kThreads = 4, kEach = 400;
  const auto set = make_set();
  std::atomic<size_t> refused{0};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < kEach; ++i) {
        if (!set->insert(address(t * kEach + i))) ++refused;
      }
    });
  }
  for (auto& t : threads) t.join();
  CHECK(refused == kThreads * kEach - AddressSet::kCapacity);
  CHECK(set->size() == AddressSet::kCapacity);
}

TEST_CASE("a set of doors has those that were not left out", "[module]") {
  static constexpr Door kDoors[] = {{"first", nullptr}, {"second", nullptr}, {"third", nullptr}};
  constexpr DoorSet kAll(kDoors, 3);
  CHECK(kAll.find("first") == 0);
  CHECK(kAll.find("third") == 2);
  CHECK(kAll.find("fourth") == -1);
  const DoorSet two = kAll.without(1);
  CHECK(two.has(0));
  CHECK_FALSE(two.has(1));
  CHECK(two.find("second") == -1);
  CHECK(two.find("third") == 2);
  CHECK(DoorSet().find("first") == -1);
}

TEST_CASE("what a fork writes to has a page of its own, of any size", "[module]") {
  const auto begin = reinterpret_cast<uintptr_t>(&forksafe::fork_page);
  for (const size_t page : {size_t{4096}, size_t{16384}, size_t{65536}}) {
    if (page > forksafe::kLargestPage) continue;
    CAPTURE(page);
    CHECK(forksafe::is_whole_pages(begin, sizeof(forksafe::ForkPage), page));
  }
  CHECK(forksafe::page_size() <= forksafe::kLargestPage);
}
