// SPDX-License-Identifier: Apache-2.0
// The ELF objects that another process has loaded, read from their files. Nothing of them is run.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "elf/image.h"
#include "process/process.h"

namespace forksafe::cli {

/// A function or variable of an object; `range` is relative to the object's base.
struct NamedRange {
  Range range;
  std::string name;
};

class Object {
 public:
  /// Maps the file at `file` as the dynamic linker would, for reading. `path` is what the process
  /// calls it, `base` where the process has it. Null where it is no ELF object that can be read.
  static std::unique_ptr<Object> open(const std::string& file, const std::string& path,
                                      uintptr_t first_byte);
  ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  const std::string& path() const { return path_; }
  std::string name() const;  ///< the path's last part
  /// Its tables. Addresses in it are those of our own mapping: `in_process` translates.
  const ElfImage& image() const { return image_; }
  /// What is added to an address in the file to get the process's.
  uintptr_t base() const { return base_; }
  /// Its first and last byte in the process.
  const Range& span() const { return span_; }
  bool defines(const char* name) const { return image_.find(name).address != nullptr; }

  /// The address, in the process, of a variable or function named in .dynsym or .symtab.
  std::optional<uintptr_t> address_of(const std::string& name) const;
  /// The name of the function at an address of the process; empty where no symbol covers it.
  std::string function_at(uintptr_t address) const;
  /// The name of the variable that begins at an address of the process, or empty.
  std::string variable_at(uintptr_t address) const;
  /// Whether its file has a full symbol table (.symtab), or was stripped of it.
  bool has_symbol_table() const;
  /// The first text in its read-only or initialised data that starts with `prefix`.
  std::string find_text(const std::string& prefix) const;
  /// The highest symbol version that it defines whose name starts with `prefix`.
  std::string highest_version(const std::string& prefix) const;
  /// Our copy of what the process has at `address`, where its file has it read-only; else null.
  const void* constant(uintptr_t address, size_t size) const;
  /// How large its thread-local storage is (PT_TLS), and how much of that has an initial value.
  size_t tls_size() const;
  size_t tls_image_size() const;
  /// Where the process has its .eh_frame_hdr (PT_GNU_EH_FRAME); empty where there is none.
  Range unwind_table() const;

 private:
  Object() = default;
  void read_symbols() const;

  std::string file_;
  std::string path_;
  void* mapping_ = nullptr;
  size_t mapping_size_ = 0;
  std::vector<ElfW(Phdr)> headers_;
  ElfImage image_;
  uintptr_t base_ = 0;
  Range span_;
  // Read at first use, sorted by address: of .symtab, or where that was stripped off, of .dynsym.
  mutable bool symbols_read_ = false;
  mutable bool has_symbol_table_ = false;
  mutable std::vector<NamedRange> symbols_;
};

/// Whether an object is a part of the C library: libc itself, libpthread, the dynamic linker.
bool is_c_library(const Object& object);

class Objects {
 public:
  explicit Objects(const Process& process);

  auto begin() const { return objects_.begin(); }
  auto end() const { return objects_.end(); }
  size_t size() const { return objects_.size(); }
  /// The object that holds an address of the process; null where none does.
  const Object* at(uintptr_t address) const;
  /// The process's program; null where its file can't be read.
  const Object* program() const { return program_; }

 private:
  std::vector<std::unique_ptr<Object>> objects_;  // by address
  const Object* program_ = nullptr;
};

/// A variable of the environment as it is in the process's memory, with what the program has set by
/// setenv or putenv: /proc has only what the process was started with. Where the memory can't be
/// read, that. None where the variable is not set.
std::optional<std::string> variable_now(const Process& process, const Objects& objects,
                                        const std::string& name);

}  // namespace forksafe::cli
