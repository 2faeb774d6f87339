// SPDX-License-Identifier: Apache-2.0
// An object's file, laid out as the dynamic linker does it.
#include "process/objects.h"

#include <catch2/catch.hpp>

using forksafe::cli::Object;

namespace {

// Whether it can be read by pages of that size.
bool is_read(const char* file, size_t page) {
  constexpr uintptr_t kFirstByte = 0x10000000;
  const auto object = Object::open(file, file, kFirstByte, "", std::nullopt, page);
  if (object == nullptr) return false;
  CHECK(object->span().begin == kFirstByte);
  const auto start = object->address_of("crew_start");
  REQUIRE(start);
  CHECK(object->function_at(*start) == "crew_start");
  CHECK(object->constant(*start, 1) != nullptr);
  return true;
}

}  // namespace

TEST_CASE("an object is read by pages of the size for which it was laid out", "[objects]") {
  const size_t here = forksafe::page_size();
  for (const size_t page : {size_t{4096}, size_t{16384}, size_t{65536}}) {
    CAPTURE(page);
    if (page < here) continue;  // the kernel maps whole pages only
    CHECK(is_read(PAGED_65536, page));
    // No kernel with larger pages runs it.
    CHECK(is_read(PAGED_4096, page) == (page == 4096));
  }
}
