// SPDX-License-Identifier: Apache-2.0
// Reading .symtab from files that are whole, stripped, cut short or altered.
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <random>
#include <string>

#include "elf/file.h"
#include "support.h"

namespace {

using Symbols = std::map<std::string, uintptr_t>;

bool read_symbols(const std::string& path, Symbols* symbols) {
  return forksafe::each_file_symbol(
      path.c_str(),
      [](const char* name, uintptr_t value, size_t, void* context) {
        (*static_cast<Symbols*>(context))[name] = value;
      },
      symbols);
}

// A file in memory, written many times.
class File {
 public:
  File() : fd_(memfd_create("altered", MFD_CLOEXEC)) { REQUIRE(fd_ >= 0); }
  ~File() { close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Whether it can be walked with this content, and a hole behind it. A crash fails the test.
  bool walks(const std::string& content, Symbols* symbols, size_t hole = 0) const {
    REQUIRE(ftruncate(fd_, static_cast<off_t>(content.size() + hole)) == 0);
    REQUIRE(pwrite(fd_, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
    return read_symbols("/proc/self/fd/" + std::to_string(fd_), symbols);
  }
  bool walks(const std::string& content) const {
    Symbols symbols;
    return walks(content, &symbols);
  }

 private:
  const int fd_;
};

ElfW(Ehdr) * header_of(std::string* content) {
  return reinterpret_cast<ElfW(Ehdr)*>(content->data());
}

ElfW(Shdr) * section_of(std::string* content, unsigned type) {
  const ElfW(Ehdr)* header = header_of(content);
  auto* sections = reinterpret_cast<ElfW(Shdr)*>(content->data() + header->e_shoff);
  for (size_t i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type == type) return &sections[i];
  }
  throw std::runtime_error("no such section");
}

ElfW(Shdr) * symtab_strings_of(std::string* content) {
  auto* sections = reinterpret_cast<ElfW(Shdr)*>(content->data() + header_of(content)->e_shoff);
  return &sections[section_of(content, SHT_SYMTAB)->sh_link];
}

}  // namespace

TEST_CASE("the file names static variables where they really are", "[elf_file]") {
  void* handle = load(fixture_path("symbols_gnu"));
  const auto in_data = function_in<void* (*)()>(handle, "fixture_address_of_static")();
  const auto in_bss = function_in<void* (*)()>(handle, "fixture_address_of_zero")();
  const auto hidden = function_in<void* (*)()>(handle, "fixture_address_of_hidden")();
  const forksafe::ElfImage image = image_at(in_data);

  // The names of static variables are mangled: _ZL14hidden_counter.
  Symbols symbols;
  REQUIRE(read_symbols(image.path(), &symbols));
  std::map<std::string, void*> found;
  for (const auto& [name, value] : symbols) {
    for (const char* wanted : {"hidden_counter", "hidden_zero", "fixture_hidden_function"}) {
      if (name.find(wanted) != std::string::npos) {
        found[wanted] = reinterpret_cast<void*>(image.base() + value);
      }
    }
  }
  CHECK(found["hidden_counter"] == in_data);
  CHECK(found["hidden_zero"] == in_bss);
  CHECK(found["fixture_hidden_function"] == hidden);
}

TEST_CASE("undefined and thread-local symbols are not visited", "[elf_file]") {
  Symbols symbols;
  REQUIRE(read_symbols(fixture_path("symbols_gnu"), &symbols));
  CHECK(symbols.count("fixture_answer") == 1);
  CHECK(symbols.count("fixture_nobody_defines_this") == 0);
  CHECK(symbols.count("fixture_thread_local") == 0);
}

TEST_CASE("a thread-local variable is found by its name", "[elf_file]") {
  const std::string path = fixture_path("symbols_gnu");
  const forksafe::ThreadLocal first =
      forksafe::find_file_thread_local(path.c_str(), "fixture_thread_local");
  const forksafe::ThreadLocal second =
      forksafe::find_file_thread_local(path.c_str(), "fixture_more");
  CHECK(first.size == sizeof(int));
  CHECK(second.size == 5 * sizeof(int));
  CHECK(second.offset >= first.offset + first.size);  // .tbss comes after .tdata
  for (const char* other : {"fixture_answer", "fixture_nothing"}) {
    CHECK(forksafe::find_file_thread_local(path.c_str(), other).size == 0);
  }
  CHECK(forksafe::find_file_thread_local("/nonexistent/file", "fixture_more").size == 0);
}

TEST_CASE("an empty path is the program itself", "[elf_file]") {
  Symbols symbols;
  REQUIRE(read_symbols("", &symbols));
  CHECK(symbols.count("main") == 1);
}

TEST_CASE("a stripped file has no symbols to walk", "[elf_file]") {
  Symbols symbols;
  CHECK_FALSE(read_symbols(fixture_path("symbols_stripped"), &symbols));
  CHECK(symbols.empty());
}

TEST_CASE("a file that is not ELF is refused", "[elf_file]") {
  const File file;
  Symbols symbols;
  CHECK_FALSE(read_symbols("/nonexistent/file", &symbols));
  CHECK_FALSE(read_symbols("/tmp", &symbols));
  CHECK_FALSE(read_symbols("/dev/null", &symbols));
  CHECK_FALSE(file.walks(""));
  CHECK_FALSE(file.walks("x"));
  CHECK_FALSE(file.walks(ELFMAG));
  CHECK_FALSE(file.walks(std::string(100000, 'x')));
  CHECK_FALSE(file.walks(std::string(100000, '\0')));
  CHECK(symbols.empty());
}

TEST_CASE("reading keeps errno", "[elf_file]") {
  Symbols symbols;
  errno = 4711;
  read_symbols("/nonexistent", &symbols);
  CHECK(errno == 4711);
}

TEST_CASE("a file that is cut short anywhere is refused", "[elf_file]") {
  const File file;
  const std::string whole = read_file(fixture_path("symbols_gnu"));
  REQUIRE(file.walks(whole));
  // The section headers stand at the end.
  for (const size_t size : {sizeof(ElfW(Ehdr)) - 1, sizeof(ElfW(Ehdr)), sizeof(ElfW(Ehdr)) + 1,
                            size_t{4096}, whole.size() / 2, whole.size() - 1}) {
    CAPTURE(size);
    CHECK_FALSE(file.walks(whole.substr(0, size)));
  }
}

TEST_CASE("tables outside of the file are refused", "[elf_file]") {
  const File file;
  const std::string whole = read_file(fixture_path("symbols_gnu"));
  std::string altered = whole;
  constexpr ElfW(Off) kMost = ~ElfW(Off){0};
  const ElfW(Off)
      offsets[] = {static_cast<ElfW(Off)>(whole.size()), static_cast<ElfW(Off)>(whole.size() + 8),
                   kMost / 4 + 1, kMost - 7, kMost & ~ElfW(Off){4095}};

  SECTION("section headers") {
    for (const ElfW(Off) offset : offsets) {
      header_of(&altered)->e_shoff = offset;
      CHECK_FALSE(file.walks(altered));
    }
  }
  SECTION("section headers at an odd place") {
    header_of(&altered)->e_shoff += 1;
    CHECK_FALSE(file.walks(altered));
  }
  SECTION("more section headers than there are") {
    header_of(&altered)->e_shnum = 0xfeff;
    CHECK_FALSE(file.walks(altered));
  }
  SECTION("no section headers") {
    header_of(&altered)->e_shnum = 0;
    CHECK_FALSE(file.walks(altered));
  }
  SECTION("section headers of another size") {
    header_of(&altered)->e_shentsize = sizeof(ElfW(Shdr)) - 8;
    CHECK_FALSE(file.walks(altered));
  }
  SECTION("symbols") {
    for (const ElfW(Off) offset : offsets) {
      section_of(&altered, SHT_SYMTAB)->sh_offset = offset;
      CHECK_FALSE(file.walks(altered));
    }
  }
  SECTION("symbols at an odd place") {
    section_of(&altered, SHT_SYMTAB)->sh_offset += 3;
    CHECK_FALSE(file.walks(altered));
  }
  SECTION("more symbols than the file has bytes") {
    for (const ElfW(Off) size : offsets) {
      section_of(&altered, SHT_SYMTAB)->sh_size = size;
      CHECK_FALSE(file.walks(altered));
    }
  }
  SECTION("more symbols than any library has") {
    constexpr size_t kTooLarge = (size_t{256} << 20) + sizeof(ElfW(Sym));
    section_of(&altered, SHT_SYMTAB)->sh_size = kTooLarge;
    Symbols symbols;
    CHECK_FALSE(file.walks(altered, &symbols, kTooLarge));
  }
  SECTION("names") {
    for (const ElfW(Off) offset : offsets) {
      symtab_strings_of(&altered)->sh_offset = offset;
      CHECK_FALSE(file.walks(altered));
    }
  }
  SECTION("names of no or absurd size") {
    for (const ElfW(Off) size : {ElfW(Off){0}, kMost / 4 + 1, kMost}) {
      symtab_strings_of(&altered)->sh_size = size;
      CHECK_FALSE(file.walks(altered));
    }
  }
  SECTION("names without an end") {
    ElfW(Shdr)* strings = symtab_strings_of(&altered);
    altered[strings->sh_offset + strings->sh_size - 1] = 'x';
    CHECK_FALSE(file.walks(altered));
  }
  SECTION("the names' section does not exist") {
    section_of(&altered, SHT_SYMTAB)->sh_link = header_of(&altered)->e_shnum;
    CHECK_FALSE(file.walks(altered));
  }
}

TEST_CASE("a symbol whose name is outside of the table is passed over", "[elf_file]") {
  const File file;
  std::string altered = read_file(fixture_path("symbols_gnu"));
  const ElfW(Shdr)* table = section_of(&altered, SHT_SYMTAB);
  auto* symbols = reinterpret_cast<ElfW(Sym)*>(altered.data() + table->sh_offset);
  const auto names_size = static_cast<uint32_t>(symtab_strings_of(&altered)->sh_size);
  for (size_t i = 1; i < table->sh_size / sizeof *symbols; ++i) {
    symbols[i].st_name = i % 2 == 0 ? names_size : UINT32_MAX;
  }
  Symbols found;
  CHECK(file.walks(altered, &found));
  CHECK(found.empty());
}

TEST_CASE("no altered bytes make the walk leave the file", "[elf_file]") {
  const File file;
  const std::string whole = read_file(fixture_path("symbols_gnu"));
  std::string copy = whole;
  const size_t sections = header_of(&copy)->e_shoff;
  const size_t sections_size = header_of(&copy)->e_shnum * sizeof(ElfW(Shdr));
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string altered = whole;
    for (int flips = 1 + static_cast<int>(random() % 3); flips > 0; --flips) {
      // The headers and the section headers say where everything is.
      const size_t at =
          random() % 3 == 0 ? random() % sizeof(ElfW(Ehdr)) : sections + random() % sections_size;
      altered[at] = static_cast<char>(random());
    }
    file.walks(altered);
  }
  SUCCEED();
}
