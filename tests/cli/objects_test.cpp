// SPDX-License-Identifier: Apache-2.0
// An object's file, laid out as the dynamic linker does it.
#include "process/objects.h"

#include <link.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "support.h"

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

// A small file could cost any amount of memory.
TEST_CASE("symbols that all have the same long name are left out after some", "[objects]") {
  std::string content = forksafe_test::read_file(PAGED_4096);
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(content.data());
  auto* sections = reinterpret_cast<ElfW(Shdr)*>(content.data() + header->e_shoff);
  auto* table = std::find_if(sections, sections + header->e_shnum,
                             [](const ElfW(Shdr) & s) { return s.sh_type == SHT_SYMTAB; });
  constexpr size_t kLength = size_t{8} << 20;
  sections[table->sh_link].sh_offset = content.size();
  sections[table->sh_link].sh_size = kLength + 1;
  std::vector<uintptr_t> values;
  for (size_t at = 0; at < table->sh_size; at += sizeof(ElfW(Sym))) {
    auto* symbol = reinterpret_cast<ElfW(Sym)*>(content.data() + table->sh_offset + at);
    symbol->st_name = 0;
    const unsigned type = ELF64_ST_TYPE(symbol->st_info);
    const bool is_named = type == STT_FUNC || type == STT_OBJECT;
    if (is_named && symbol->st_shndx != SHN_UNDEF) values.push_back(symbol->st_value);
  }
  content += std::string(kLength, 'n') + '\0';
  const forksafe_test::TemporaryDirectory folder;
  const std::string file = folder.file("long.so");
  forksafe_test::write_file(file, content);
  const auto object = Object::open(file, file, 0);
  REQUIRE(object != nullptr);
  const auto named = std::count_if(values.begin(), values.end(), [&](uintptr_t value) {
    return object->variable_at(object->base() + value).size() == kLength;
  });
  CHECK(named > 0);
  CHECK(named < static_cast<long>(values.size()));
}
