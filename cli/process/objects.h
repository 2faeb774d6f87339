// SPDX-License-Identifier: Apache-2.0
// Reads the ELF objects that another process has loaded, from their files. Never runs their code.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "elf/image.h"
#include "pages.h"
#include "process/process.h"

namespace forksafe::cli {

/// A function or variable of an object; `range` is relative to the object's base.
struct NamedRange {
  Range range;
  std::string name;
};

/// Where a name stands.
enum class NamedBy { kNothing, kDynamicSymbols, kSymbolTable, kDebugFile };

class Object {
 public:
  /// Maps the file at `file` for reading, laid out as the dynamic linker does it. `path` is its
  /// path in the process, whose root folder is `root`; `first_byte` is where the process has its
  /// first byte. Null if the file is no ELF object that can be read, or not the one with this
  /// inode. Objects of the same file share what was read of it.
  static std::unique_ptr<Object> open(const std::string& file, const std::string& path,
                                      uintptr_t first_byte, const std::string& root = "",
                                      std::optional<uint64_t> inode = std::nullopt,
                                      size_t page = page_size());
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  const std::string& path() const { return content_->path; }
  std::string name() const;  ///< the last part of the path
  /// The ELF tables. Their addresses are those of our own mapping, not of the process.
  const ElfImage& image() const { return content_->image; }
  /// The address in the process minus the address in the file.
  uintptr_t base() const { return base_; }
  /// The address range of the object in the process.
  const Range& span() const { return span_; }
  bool defines(const char* name) const { return image().find(name).address != nullptr; }
  /// The answer to a question about the file alone. Each question is asked once for each file.
  bool is(bool (*question)(const Object& object)) const;

  /// The address, in the process, of a variable or function named in .dynsym or .symtab, or in the
  /// .symtab of a separate debug file.
  std::optional<uintptr_t> address_of(const char* name) const;
  NamedBy named_by(const char* name) const;
  /// The name of the function at an address of the process; empty if no symbol covers it.
  std::string function_at(uintptr_t address) const;
  /// The name of the variable that begins at an address of the process, or empty.
  std::string variable_at(uintptr_t address) const;
  /// Whether the file's .symtab names this thread-local variable.
  bool has_thread_local(const char* name) const;
  /// Whether the file has a full symbol table (.symtab). A stripped file has none.
  bool has_symbol_table() const;
  /// The first text that starts with `prefix` in the read-only or initialised data.
  std::string find_text(const std::string& prefix) const;
  /// The highest symbol version defined here whose name starts with `prefix`.
  std::string highest_version(const std::string& prefix) const;
  /// Our copy of the bytes at `address` of the process, if they are read-only; otherwise null.
  const void* constant(uintptr_t address, size_t size) const;
  /// The size of the thread-local storage (PT_TLS), and of the part that has initial values.
  size_t tls_size() const;
  size_t tls_image_size() const;
  /// The range of .eh_frame_hdr (PT_GNU_EH_FRAME) in the process; empty if there is none.
  Range unwind_table() const;

 private:
  // What is read of a file, which does not depend on the process.
  struct Content {
    Content() = default;
    ~Content();
    Content(const Content&) = delete;
    Content& operator=(const Content&) = delete;

    std::string file;  // where it can be opened: in the folder of a process that has loaded it
    std::string path;
    std::string root;  // of that process
    void* mapping = nullptr;
    size_t mapping_size = 0;
    std::vector<ElfW(Phdr)> headers;
    ElfImage image;
    Range span;  // relative to the base
    // The symbols of .symtab, read at first use, sorted by address. Those of a stripped file are in
    // its debug file, otherwise in .dynsym.
    bool symbols_read = false;
    bool has_symbol_table = false;
    std::vector<NamedRange> symbols;
    std::map<bool (*)(const Object&), bool> answers;
  };

  Object(std::shared_ptr<Content> content, uintptr_t first_byte);
  static std::shared_ptr<Content> read(const std::string& file, const std::string& path,
                                       size_t page);
  const std::vector<NamedRange>& symbols() const;

  std::shared_ptr<Content> content_;
  uintptr_t base_ = 0;
  Range span_;
};

/// Whether an object belongs to the C library: libc, libpthread or the dynamic linker.
bool is_c_library(const Object& object);

class Objects {
 public:
  explicit Objects(const Process& process);

  auto begin() const { return objects_.begin(); }
  auto end() const { return objects_.end(); }
  size_t size() const { return objects_.size(); }
  /// The object that contains an address of the process, or null.
  const Object* at(uintptr_t address) const;
  /// The program of the process; null if its file can't be read.
  const Object* program() const { return program_; }
  /// The paths of libraries that could not be read, as their files were removed or replaced after
  /// they were loaded.
  const std::vector<std::string>& unread() const { return unread_; }

 private:
  std::vector<std::unique_ptr<Object>> objects_;  // by address
  const Object* program_ = nullptr;
  std::vector<std::string> unread_;
};

/// A variable of the environment in the memory of the process, which includes changes by setenv and
/// putenv. (/proc has only the environment at the start; it is used if the memory can't be read.)
/// None if the variable is not set.
std::optional<std::string> variable_now(const Process& process, const Objects& objects,
                                        const std::string& name);

}  // namespace forksafe::cli
