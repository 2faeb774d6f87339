// SPDX-License-Identifier: Apache-2.0
// A function whose callers are watched: those that have its address in a slot already, and those
// that look it up afterwards.
#include "doors/setters.h"

#include <catch2/catch.hpp>

#include "support.h"

namespace {

int calls_seen = 0;
int index_seen = 0;

void see_call(int index) {
  ++calls_seen;
  index_seen = index;
}

}  // namespace

TEST_CASE("who is bound to a setter and who looks it up later are seen", "[setters]") {
  void* caller = load(fixture_path("scope_caller"));
  const auto call = function_in<int (*)()>(caller, "scope_call_in_parallel");
  // Of another object, which the caller needs.
  const auto before = function_in<int (*)()>(caller, "omp_in_parallel");
  REQUIRE(before() == 3);

  const forksafe::ElfImage image = image_at(reinterpret_cast<const void*>(before));
  forksafe::watch_setter(image, image.find("omp_in_parallel"), see_call, 7);
  CHECK(calls_seen == 0);
  CHECK(call() == 3);
  CHECK(calls_seen == 1);
  CHECK(index_seen == 7);
  const auto after = function_in<int (*)()>(caller, "omp_in_parallel");
  CHECK(after != before);
  CHECK(after() == 3);
  CHECK(calls_seen == 2);
  // Who has its address from before keeps it; other symbols are as they were.
  CHECK(before() == 3);
  CHECK(reinterpret_cast<int (*)()>(image.find("omp_get_max_threads").address)() == 3);
  CHECK(calls_seen == 2);

  // A second time changes nothing.
  forksafe::watch_setter(image, image.find("omp_in_parallel"), see_call, 8);
  CHECK(call() == 3);
  CHECK(calls_seen == 3);
  CHECK(index_seen == 7);
}

TEST_CASE("a name that the object does not define is not watched", "[setters]") {
  void* library = load(fixture_path("symbols_sysv"));
  const forksafe::ElfImage image = image_at(symbol_in(library, "fixture_answer"));
  calls_seen = 0;
  forksafe::watch_setter(image, image.find("fixture_nothing"), see_call, 1);
  CHECK(function_in<int (*)()>(library, "fixture_answer")() == 42);
  CHECK(calls_seen == 0);
}
