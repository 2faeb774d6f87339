// SPDX-License-Identifier: Apache-2.0
// A loaded ELF object, read through its own program headers and dynamic section.
//
// The library can't use dlsym. Before glibc 2.34 dlsym is in libdl, dlsym allocates, and it
// searches a scope of objects where we ask about one object. The code here reads memory that the
// dynamic linker has mapped. It checks each table against the object's segments first, and writes
// nothing.
#pragma once

#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace forksafe {

/// A half-open range of addresses.
struct Range {
  uintptr_t begin = 0;
  uintptr_t end = 0;

  bool contains(uintptr_t address) const { return address - begin < end - begin; }
  bool contains(const void* address) const {
    return contains(reinterpret_cast<uintptr_t>(address));
  }
};

/// A symbol that an object defines. `address` is null where it defines no such symbol.
struct Symbol {
  void* address = nullptr;
  size_t size = 0;
  const ElfW(Sym) * entry = nullptr;  ///< in .dynsym
};

class ElfImage {
 public:
  /// Reads the object that `info` describes. False for an object that can't be understood (no
  /// dynamic section, a table outside of its segments). Such an object is left alone.
  bool read(const dl_phdr_info& info);

  /// The path as the dynamic linker gives it; empty for the program itself.
  const char* path() const { return path_ != nullptr ? path_ : ""; }
  uintptr_t base() const { return base_; }
  /// From the first to the last byte of its segments.
  const Range& span() const { return span_; }
  /// From the first to the last byte of its writable segments: where its static variables are.
  const Range& writable() const { return writable_; }
  /// What the dynamic linker made read-only after relocation (PT_GNU_RELRO).
  const Range& relro() const { return relro_; }
  /// Its thread-local storage (PT_TLS), or null.
  const ElfW(Phdr) * tls() const { return tls_; }

  /// The symbol `name` that it defines in .dynsym, in its default version. Indirect functions
  /// (STT_GNU_IFUNC) don't count.
  Symbol find(const char* name) const;

  /// The name of a symbol of its own.
  const char* name_of(const Symbol& symbol) const { return strings_ + symbol.entry->st_name; }

  /// Whether it refers to `name`, which another object may define.
  bool imports(const char* name) const;

  /// Whether `address` lies in a segment with machine code.
  bool executable(const void* address) const { return fits(address, 1, PF_X); }
  bool writable(const void* address) const { return fits(address, 1, PF_W); }

  /// Whether its thread-local storage lies at the same distance from the thread pointer in every
  /// thread.
  bool static_tls() const;

  /// The name in DT_SONAME, or null.
  const char* soname() const { return soname_; }

  /// Whether `text` is among its constants: somewhere in its segments that nothing writes to.
  bool holds(const char* text) const;

  /// Whether it names `other` in DT_NEEDED.
  bool needs(const ElfImage& other) const;

  /// Calls `visit(name, slot)` for each JUMP_SLOT and GLOB_DAT relocation.
  template <typename Visit>
  void each_slot(Visit visit) const {
    for (const Relocations& table : {relocations_, plt_relocations_}) {
      for (size_t i = 0; i < table.count; ++i) {
        const char* name;
        void** slot;
        if (slot_at(table, i, &name, &slot)) {
          visit(name, slot);
        }
      }
    }
  }

  /// Calls `visit(name)` for each DT_NEEDED.
  template <typename Visit>
  void each_needed(Visit visit) const {
    for (const ElfW(Dyn)* d = dynamic_; d->d_tag != DT_NULL; ++d) {
      if (d->d_tag == DT_NEEDED && d->d_un.d_val < strings_size_) {
        visit(strings_ + d->d_un.d_val);
      }
    }
  }

  /// Calls `visit(name, symbol)` for each symbol that it exports until it returns true. Walks the
  /// whole table: use it for names of which only a part is known.
  template <typename Visit>
  bool any_symbol(Visit visit) const {
    for (size_t i = 1; i < symbol_count_; ++i) {
      const ElfW(Sym)& s = symbols_[i];
      // Some linkers also put symbols of sections into this table, which are local and nameless.
      if (s.st_shndx != SHN_UNDEF && s.st_name < strings_size_ &&
          ELF64_ST_BIND(s.st_info) != STB_LOCAL && visit(strings_ + s.st_name, to_symbol(s))) {
        return true;
      }
    }
    return false;
  }

 private:
  struct Relocations {
    uintptr_t begin;
    size_t count;
    size_t entry_size;
  };

  bool read_dynamic();
  bool fits(const void* begin, size_t bytes, unsigned flags) const;
  template <typename T>
  bool table_fits(const T* begin, size_t count) const {
    return reinterpret_cast<uintptr_t>(begin) % alignof(T) == 0 && count <= SIZE_MAX / sizeof(T) &&
           fits(begin, count * sizeof(T), PF_R);
  }
  size_t count_symbols() const;
  bool matches(const ElfW(Sym) & symbol, size_t index, const char* name) const;
  bool slot_at(const Relocations& table, size_t index, const char** name, void*** slot) const;
  Symbol to_symbol(const ElfW(Sym) & symbol) const {
    return {reinterpret_cast<void*>(base_ + symbol.st_value), symbol.st_size, &symbol};
  }

  const char* path_ = nullptr;
  const char* soname_ = nullptr;
  bool static_tls_ = false;
  uintptr_t base_ = 0;
  const ElfW(Phdr) * headers_ = nullptr;
  size_t header_count_ = 0;
  Range span_;
  Range writable_;
  Range relro_;
  const ElfW(Phdr) * tls_ = nullptr;
  const ElfW(Dyn) * dynamic_ = nullptr;
  const ElfW(Sym) * symbols_ = nullptr;
  size_t symbol_count_ = 0;
  const char* strings_ = nullptr;
  size_t strings_size_ = 0;
  const uint16_t* versions_ = nullptr;
  const uint32_t* gnu_hash_ = nullptr;
  const Elf_Symndx* sysv_hash_ = nullptr;  // of 64 bits on s390x, of 32 elsewhere
  Relocations relocations_ = {};
  Relocations plt_relocations_ = {};
};

/// The first of the first `count` records of a table that is of that object: its `image` lies at
/// the same address. `count` if there is none.
template <typename Record>
int index_of_image(const Record* records, int count, const ElfImage& image) {
  int index = 0;
  while (index < count && records[index].image.base() != image.base()) ++index;
  return index;
}

template <typename Record>
bool has_image(const Record* records, int count, const ElfImage& image) {
  return index_of_image(records, count, image) < count;
}

}  // namespace forksafe
