// SPDX-License-Identifier: Apache-2.0
// The library watches the calls of a function: by callers that have its address in a slot already,
// and by callers that look it up afterwards.
#include "doors/setters.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "support.h"

namespace {

int calls_seen = 0;
int index_seen = 0;

void see_call(int index) {
  ++calls_seen;
  index_seen = index;
}

}  // namespace

TEST_CASE("calls through a bound slot and calls after a lookup are seen", "[setters]") {
  // A copy of its own: other tests put doors into the fixture itself.
  const TemporaryDirectory directory;
  const std::string path = directory.file("calls_setter.so");
  std::filesystem::copy_file(fixture_path("scope_caller"), path);
  void* caller = load(path);
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
  // Callers that resolved the symbol earlier keep the old address. Other symbols do not change.
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
