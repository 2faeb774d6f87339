// SPDX-License-Identifier: Apache-2.0
// What the built library needs and exports. The test reads the library's file with a parser of its
// own, because other tests check the library's parser.
#include <elf.h>
#include <link.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "support.h"

namespace {

class Library {
 public:
  Library() : content_(read_file(FORKSAFE_LIB)) {
    REQUIRE(content_.size() > sizeof(ElfW(Ehdr)));
    REQUIRE(memcmp(content_.data(), ELFMAG, SELFMAG) == 0);
  }

  template <typename T>
  const T* at(size_t offset) const {
    REQUIRE(offset + sizeof(T) <= content_.size());
    return reinterpret_cast<const T*>(content_.data() + offset);
  }
  const ElfW(Ehdr) * header() const { return at<ElfW(Ehdr)>(0); }

  const ElfW(Shdr) * section(size_t index) const {
    return at<ElfW(Shdr)>(header()->e_shoff + index * sizeof(ElfW(Shdr)));
  }
  const ElfW(Shdr) * section_of_type(unsigned type) const {
    for (size_t i = 0; i < header()->e_shnum; ++i) {
      if (section(i)->sh_type == type) return section(i);
    }
    return nullptr;
  }
  std::string name(const ElfW(Shdr) * table, size_t offset) const {
    return content_.data() + section(table->sh_link)->sh_offset + offset;
  }
  template <typename Entry>
  std::vector<Entry> entries(const ElfW(Shdr) * table) const {
    std::vector<Entry> result;
    for (size_t i = 0; i < table->sh_size / sizeof(Entry); ++i) {
      result.push_back(*at<Entry>(table->sh_offset + i * sizeof(Entry)));
    }
    return result;
  }

 private:
  std::string content_;
};

}  // namespace

TEST_CASE("the library exports its ways in and its state, without a version", "[exports]") {
  const Library library;
  const auto* table = library.section_of_type(SHT_DYNSYM);
  REQUIRE(table != nullptr);
  const auto symbols = library.entries<ElfW(Sym)>(table);
  const auto* versions = library.section_of_type(SHT_GNU_versym);
  std::set<std::string> exported;
  for (size_t i = 1; i < symbols.size(); ++i) {
    // Some linkers also put symbols of sections into this table, which are local and nameless.
    if (symbols[i].st_shndx == SHN_UNDEF || ELF64_ST_BIND(symbols[i].st_info) == STB_LOCAL) {
      continue;
    }
    exported.insert(library.name(table, symbols[i].st_name));
    if (versions != nullptr) {
      CHECK(library.entries<uint16_t>(versions)[i] == VER_NDX_GLOBAL);
    }
  }
  std::set<std::string> expected = {"__fork", "__gmon_start__", "__register_atfork",
                                    "fork",   "forkpty",        "forksafe_state"};
#if defined(__riscv)
  expected.insert("pthread_key_create");
#endif
  CHECK(exported == expected);
  CHECK(library.section_of_type(SHT_GNU_verdef) == nullptr);
}

TEST_CASE("the library needs libc alone", "[exports]") {
  const Library library;
  const auto* dynamic = library.section_of_type(SHT_DYNAMIC);
  REQUIRE(dynamic != nullptr);
  std::vector<std::string> needed;
  for (const auto& d : library.entries<ElfW(Dyn)>(dynamic)) {
    if (d.d_tag == DT_NEEDED) {
      const std::string name = library.name(dynamic, d.d_un.d_val);
      // The loader is a part of libc. On some architectures it has the canary of the stack
      // protector.
      if (name.compare(0, 9, "ld-linux-") != 0) needed.push_back(name);
    }
    CHECK(d.d_tag != DT_RPATH);
    CHECK(d.d_tag != DT_RUNPATH);
    CHECK(d.d_tag != DT_TEXTREL);
  }
  CHECK(needed == std::vector<std::string>{"libc.so.6"});
}

TEST_CASE("the library needs no glibc newer than 2.31", "[exports]") {
  const Library library;
  const auto* table = library.section_of_type(SHT_GNU_verneed);
  REQUIRE(table != nullptr);
  size_t offset = table->sh_offset;
  size_t versions_seen = 0;
  for (size_t i = 0; i < table->sh_info; ++i) {
    const auto* file = library.at<ElfW(Verneed)>(offset);
    size_t version_offset = offset + file->vn_aux;
    for (size_t k = 0; k < file->vn_cnt; ++k) {
      const auto* version = library.at<ElfW(Vernaux)>(version_offset);
      const std::string name = library.name(table, version->vna_name);
      CAPTURE(name);
      version_offset += version->vna_next;
      // Not a need of the code: Fedora links everything with -z pack-relative-relocs (glibc 2.36).
      if (name == "GLIBC_ABI_DT_RELR") continue;
      int major = 0, minor = 0;
      REQUIRE(sscanf(name.c_str(), "GLIBC_%d.%d", &major, &minor) == 2);
      CHECK(major == 2);
      CHECK(minor <= 31);
      ++versions_seen;
    }
    offset += file->vn_next;
  }
  CHECK(versions_seen > 0);
}

TEST_CASE("the library has no static variable that code initialises", "[exports]") {
  const Library library;
  const auto* constructors = library.section_of_type(SHT_INIT_ARRAY);
  REQUIRE(constructors != nullptr);
  // The start files' own, and construct() in preload.cpp. On aarch64 also libgcc's, which asks
  // whether the processor has atomic instructions; before it has run, libgcc's functions do
  // without.
#if defined(__aarch64__)
  constexpr size_t kExpected = 3;
#else
  constexpr size_t kExpected = 2;
#endif
  CHECK(constructors->sh_size == kExpected * sizeof(void (*)()));
}

TEST_CASE("the library has no executable stack and no segment that is writable and executable",
          "[exports]") {
  const Library library;
  bool has_stack_header = false;
  for (size_t i = 0; i < library.header()->e_phnum; ++i) {
    const auto* p = library.at<ElfW(Phdr)>(library.header()->e_phoff + i * sizeof(ElfW(Phdr)));
    if (p->p_type == PT_GNU_STACK) {
      has_stack_header = true;
      CHECK((p->p_flags & PF_X) == 0);
    }
    if (p->p_type == PT_LOAD) CHECK((p->p_flags & (PF_W | PF_X)) != (PF_W | PF_X));
  }
  CHECK(has_stack_header);
}

// The kernel counts private memory that a program may write to, whether it does or not
// (Committed_AS, RLIMIT_DATA).
TEST_CASE("a process is charged for little memory", "[exports]") {
  const Library library;
  size_t charged = 0;
  for (size_t i = 0; i < library.header()->e_phnum; ++i) {
    const auto* p = library.at<ElfW(Phdr)>(library.header()->e_phoff + i * sizeof(ElfW(Phdr)));
    if (p->p_type == PT_LOAD && (p->p_flags & PF_W) != 0) charged += p->p_memsz;
  }
  CHECK(charged < size_t{512} * 1024);
}

TEST_CASE("the library is bound at load, so that no handler calls the dynamic linker",
          "[exports]") {
  const Library library;
  const auto* dynamic = library.section_of_type(SHT_DYNAMIC);
  REQUIRE(dynamic != nullptr);
  bool bind_now = false;
  for (const auto& d : library.entries<ElfW(Dyn)>(dynamic)) {
    if (d.d_tag == DT_BIND_NOW) bind_now = true;
    if (d.d_tag == DT_FLAGS && (d.d_un.d_val & DF_BIND_NOW) != 0) bind_now = true;
    if (d.d_tag == DT_FLAGS_1 && (d.d_un.d_val & DF_1_NOW) != 0) bind_now = true;
  }
  CHECK(bind_now);
}
