// SPDX-License-Identifier: Apache-2.0
#include "elf/loaded_objects.h"

#include <dlfcn.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "support.h"

namespace {

std::vector<std::string> seen;

void see(const forksafe::ElfImage& image) { seen.emplace_back(image.path()); }

using Paths = std::vector<std::string>;

/// The paths that a look gives. `caller`: as the dynamic linker calls the object's _init.
Paths look(const void* caller) {
  seen.clear();
  const bool any = forksafe::each_new_object(caller, see);
  CHECK(any == !seen.empty());
  return seen;
}

/// An address in a loaded object.
const void* in(void* handle) { return static_cast<const link_map*>(handle)->l_ld; }

}  // namespace

TEST_CASE("each loaded object is new once, and again when it was loaded anew", "[loaded_objects]") {
  CHECK(look(nullptr).size() >= 5);
  CHECK(look(nullptr).empty());
  CHECK(look(reinterpret_cast<const void*>(&look)).empty());

  const std::string first = fixture_path("symbols_gnu");
  for (int i = 0; i < 4; ++i) {  // at the same address, usually
    void* handle = load(first);
    CHECK(look(in(handle)) == Paths{first});
    dlclose(handle);
  }

  // The linker maps all objects, and then calls each one's _init.
  const std::string second = fixture_path("symbols_sysv");
  const std::string third = fixture_path("symbols_both");
  void* needed = load(second);
  void* needs = load(third);
  CHECK(look(in(needed)) == Paths{second, third});
  CHECK(look(in(needs)).empty());
}

TEST_CASE("a child trusts the linker when it has loaded something", "[loaded_objects]") {
  void* stays = load(fixture_path("doors_open"));
  void* goes = load(fixture_path("doors_lazy"));
  void* waits = load(fixture_path("symbols_stripped"));
  look(in(stays));
  dlclose(goes);
  CHECK(run_in_child([&]() -> std::string {
          forksafe::distrust_linker();
          if (forksafe::may_ask_linker()) return "trusted at once";
          // A constructor that has forked goes on, and the next one has its turn. There are fewer
          // objects than at the last look.
          if (!look(in(waits)).empty() || forksafe::may_ask_linker()) return "trusted by an unload";
          const std::string path = fixture_path("doors_relro");
          if (look(in(load(path))) != Paths{path}) return "not seen";
          return forksafe::may_ask_linker() ? "" : "not trusted";
        }) == "");
}

TEST_CASE("an object that came again proves nothing to a child", "[loaded_objects]") {
  const std::string path = fixture_path("symbols_gnu");
  void* handle = load(path);
  look(in(handle));
  CHECK(run_in_child([&]() -> std::string {
          forksafe::distrust_linker();
          forksafe::ElfImage image;
          if (!forksafe::came_again(in(handle), &image)) return "an object that was seen";
          dlclose(handle);
          void* const again = load(path);
          if (!forksafe::came_again(in(again), &image)) return "not known";
          if (image.path() != path) return image.path();
          // The parent may have loaded it, and this child may go on from a constructor that forked.
          if (!look(in(again)).empty() || forksafe::may_ask_linker()) return "trusted";
          return "";
        }) == "");
}

TEST_CASE("the object of a function is found by its header", "[loaded_objects]") {
  void* handle = load(fixture_path("symbols_gnu"));
  for (const void* function :
       {static_cast<const void*>(symbol_in(handle, "fixture_answer")),
        reinterpret_cast<const void*>(&look), reinterpret_cast<const void*>(&dlopen)}) {
    forksafe::ElfImage image;
    REQUIRE(forksafe::find_object_by_header(function, &image));
    CHECK(image.base() == image_at(function).base());
    CHECK(image.span().end == image_at(function).span().end);
  }
  const std::vector<char> nothing(1000);
  forksafe::ElfImage image;
  CHECK_FALSE(forksafe::find_object_by_header(nothing.data(), &image));
  CHECK_FALSE(forksafe::find_object_by_header(nullptr, &image));
}
