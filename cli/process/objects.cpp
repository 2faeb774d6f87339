// SPDX-License-Identifier: Apache-2.0
#include "process/objects.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "elf/file.h"
#include "process/debug_file.h"

namespace forksafe::cli {
namespace {

// Larger than any library. A file that claims more is damaged.
constexpr uint64_t kMaxSpan = uint64_t{1} << 36;

class File {
 public:
  explicit File(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }
  template <typename T>
  bool read(size_t offset, T* result, size_t count = 1) const {
    const size_t size = count * sizeof(T);
    return pread(fd_, result, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
  }

 private:
  int fd_;
};

}  // namespace

std::unique_ptr<Object> Object::open(const std::string& file, const std::string& path,
                                     uintptr_t first_byte, const std::string& root, size_t page) {
  const File f(file);
  struct stat info = {};
  ElfW(Ehdr) header = {};
  if (f.fd() < 0 || fstat(f.fd(), &info) != 0 || !S_ISREG(info.st_mode) || !f.read(0, &header) ||
      memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != (sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32) ||
      header.e_phentsize != sizeof(ElfW(Phdr)) || header.e_phnum == 0) {
    return nullptr;
  }
  std::unique_ptr<Object> object(new Object);
  object->file_ = file;
  object->path_ = path;
  object->root_ = root;
  object->headers_.resize(header.e_phnum);
  if (!f.read(header.e_phoff, object->headers_.data(), header.e_phnum)) return nullptr;

  Range span;
  const auto size = static_cast<uintptr_t>(info.st_size);
  for (const ElfW(Phdr) & p : object->headers_) {
    if (p.p_type != PT_LOAD) continue;
    const uintptr_t end = p.p_vaddr + p.p_memsz;
    if (end < p.p_vaddr || p.p_offset > size || p.p_filesz > size - p.p_offset ||
        p.p_filesz > p.p_memsz || (p.p_vaddr - p.p_offset) % page != 0) {
      return nullptr;
    }
    if (span.end == 0) span.begin = page_of(p.p_vaddr, page);
    span.begin = std::min(span.begin, page_of(p.p_vaddr, page));
    span.end = std::max(span.end, end);
  }
  if (span.end <= span.begin || span.end - span.begin > kMaxSpan) return nullptr;
  object->base_ = first_byte - span.begin;
  object->span_ = {first_byte, object->base_ + span.end};

  // Map zeros first: a segment may be larger in memory than in the file.
  object->mapping_size_ = span.end - span.begin;
  object->mapping_ = mmap(nullptr, object->mapping_size_, PROT_READ,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (object->mapping_ == MAP_FAILED) {
    object->mapping_ = nullptr;
    return nullptr;
  }
  auto* start = static_cast<char*>(object->mapping_);
  for (const ElfW(Phdr) & p : object->headers_) {
    if (p.p_type != PT_LOAD || p.p_filesz == 0) continue;
    const uintptr_t begin = page_of(p.p_vaddr, page);
    if (mmap(start + (begin - span.begin), p.p_vaddr + p.p_filesz - begin, PROT_READ,
             MAP_PRIVATE | MAP_FIXED, f.fd(),
             static_cast<off_t>(p.p_offset - (p.p_vaddr - begin))) == MAP_FAILED) {
      return nullptr;
    }
  }
  dl_phdr_info described = {};
  described.dlpi_addr = reinterpret_cast<uintptr_t>(start) - span.begin;
  described.dlpi_name = object->path_.c_str();
  described.dlpi_phdr = object->headers_.data();
  described.dlpi_phnum = header.e_phnum;
  if (!object->image_.read(described)) return nullptr;
  return object;
}

Object::~Object() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_size_);
}

std::string Object::name() const { return path_.substr(path_.rfind('/') + 1); }

void Object::read_symbols() const {
  if (symbols_read_) return;
  symbols_read_ = true;
  const auto read = [this](const std::string& file) {
    return each_file_symbol(
        file.c_str(),
        [](const char* name, uintptr_t value, size_t size, void* context) {
          static_cast<std::vector<NamedRange>*>(context)->push_back({{value, value + size}, name});
        },
        &symbols_);
  };
  has_symbol_table_ = read(file_);
  const std::string debug_file = has_symbol_table_ ? "" : find_debug_file(root_, path_, file_);
  if (!has_symbol_table_ && (debug_file.empty() || !read(debug_file))) {
    image_.any_symbol([this](const char* name, const Symbol& s) {
      const uintptr_t value = reinterpret_cast<uintptr_t>(s.address) - image_.base();
      symbols_.push_back({{value, value + s.size}, name});
      return false;
    });
  }
  std::stable_sort(symbols_.begin(), symbols_.end(), [](const NamedRange& a, const NamedRange& b) {
    return a.range.begin < b.range.begin;
  });
}

bool Object::has_symbol_table() const {
  read_symbols();
  return has_symbol_table_;
}

bool Object::has_thread_local(const char* name) const {
  return find_file_thread_local(file_.c_str(), name).size != 0;
}

std::optional<uintptr_t> Object::address_of(const std::string& name) const {
  const Symbol symbol = image_.find(name.c_str());
  if (symbol.address != nullptr) {
    return reinterpret_cast<uintptr_t>(symbol.address) - image_.base() + base_;
  }
  read_symbols();
  for (const NamedRange& s : symbols_) {
    if (s.name == name) return base_ + s.range.begin;
  }
  return std::nullopt;
}

NamedBy Object::named_by(const std::string& name) const {
  if (defines(name.c_str())) return NamedBy::kDynamicSymbols;
  if (!address_of(name)) return NamedBy::kNothing;
  return has_symbol_table_ ? NamedBy::kSymbolTable : NamedBy::kDebugFile;
}

std::string Object::function_at(uintptr_t address) const {
  read_symbols();
  const uintptr_t value = address - base_;
  const auto next =
      std::upper_bound(symbols_.begin(), symbols_.end(), value,
                       [](uintptr_t v, const NamedRange& s) { return v < s.range.begin; });
  // Aliases begin at the same address: take the first in the table.
  std::string result;
  for (auto s = next; s != symbols_.begin();) {
    --s;
    if (s->range.begin != (next - 1)->range.begin) break;
    if (s->range.contains(value)) result = s->name;
  }
  return result;
}

std::string Object::variable_at(uintptr_t address) const {
  read_symbols();
  for (const NamedRange& s : symbols_) {
    if (s.range.begin == address - base_) return s.name;
  }
  return "";
}

std::string Object::find_text(const std::string& prefix) const {
  for (const ElfW(Phdr) & p : headers_) {
    if (p.p_type != PT_LOAD || (p.p_flags & PF_X) != 0) continue;
    const auto* begin = reinterpret_cast<const char*>(image_.base() + p.p_vaddr);
    const void* found = memmem(begin, p.p_filesz, prefix.data(), prefix.size());
    if (found == nullptr) continue;
    const auto* text = static_cast<const char*>(found);
    return std::string(text, strnlen(text, p.p_filesz - static_cast<size_t>(text - begin)));
  }
  return "";
}

std::string Object::highest_version(const std::string& prefix) const {
  // binutils also writes the name of a version as an absolute symbol into .dynsym.
  std::string result;
  const auto number_of = [&](const std::string& name) {
    int major = 0;
    int minor = 0;
    int patch = 0;
    sscanf(name.c_str() + prefix.size(), "%d.%d.%d", &major, &minor, &patch);
    return (major * 1000 + minor) * 1000 + patch;
  };
  image_.any_symbol([&](const char* name, const Symbol&) {
    if (strncmp(name, prefix.c_str(), prefix.size()) == 0 && name[prefix.size()] >= '0' &&
        name[prefix.size()] <= '9' && (result.empty() || number_of(name) > number_of(result))) {
      result = name;
    }
    return false;
  });
  return result;
}

const void* Object::constant(uintptr_t address, size_t size) const {
  const uintptr_t value = address - base_;
  for (const ElfW(Phdr) & p : headers_) {
    if (p.p_type != PT_LOAD || (p.p_flags & PF_W) != 0 || value < p.p_vaddr) continue;
    if (value - p.p_vaddr < p.p_filesz && size <= p.p_filesz - (value - p.p_vaddr)) {
      return reinterpret_cast<const void*>(image_.base() + value);
    }
  }
  return nullptr;
}

size_t Object::tls_size() const {
  for (const ElfW(Phdr) & p : headers_) {
    if (p.p_type == PT_TLS) return p.p_memsz;
  }
  return 0;
}

size_t Object::tls_image_size() const {
  for (const ElfW(Phdr) & p : headers_) {
    if (p.p_type == PT_TLS) return p.p_filesz;
  }
  return 0;
}

Range Object::unwind_table() const {
  for (const ElfW(Phdr) & p : headers_) {
    if (p.p_type == PT_GNU_EH_FRAME) return {base_ + p.p_vaddr, base_ + p.p_vaddr + p.p_memsz};
  }
  return {};
}

Objects::Objects(const Process& process) {
  const std::string root = process.root();
  for (const Mapping& m : process.mappings()) {
    if (m.offset != 0) continue;
    if (!objects_.empty() && objects_.back()->span().contains(m.begin)) continue;
    // If the file was replaced, the path leads to another file. Only root can reach the mapped one.
    struct stat info = {};
    std::string file = root + m.path;
    if (m.deleted || stat(file.c_str(), &info) != 0 || info.st_ino != m.inode) {
      file = fmt::format("/proc/{}/map_files/{:x}-{:x}", process.pid(), m.begin, m.end);
    }
    auto object = Object::open(file, m.path, m.begin, root);
    if (object == nullptr) continue;
    if (m.path == process.program()) program_ = object.get();
    objects_.push_back(std::move(object));
  }
}

const Object* Objects::at(uintptr_t address) const {
  const auto next = std::upper_bound(
      objects_.begin(), objects_.end(), address,
      [](uintptr_t a, const std::unique_ptr<Object>& o) { return a < o->span().begin; });
  if (next == objects_.begin()) return nullptr;
  const Object* object = (next - 1)->get();
  return object->span().contains(address) ? object : nullptr;
}

bool is_c_library(const Object& object) {
  const std::string name = object.name();
  for (const char* prefix : {"libc.so", "libc-2", "libpthread", "ld-"}) {
    if (name.rfind(prefix, 0) == 0) return true;
  }
  return false;
}

namespace {

// Reads a text of at most `most` bytes. The page after its end may not be mapped.
std::string read_text(const Process& process, uintptr_t address, size_t most) {
  std::string text;
  while (text.size() < most) {
    char buffer[4096];  // every page size is a multiple of this
    const uintptr_t at = address + text.size();
    const size_t size = std::min(most - text.size(), sizeof buffer - at % sizeof buffer);
    if (!process.read_memory(at, buffer, size)) break;
    const size_t length = strnlen(buffer, size);
    text.append(buffer, length);
    if (length < size) break;
  }
  return text;
}

}  // namespace

std::optional<std::string> variable_now(const Process& process, const Objects& objects,
                                        const std::string& name) {
  // If the program defines `environ` (a copy relocation), that one is in use.
  std::optional<uintptr_t> environment;
  for (const auto& object : objects) {
    const bool program = object.get() == objects.program();
    if (!program && !is_c_library(*object)) continue;
    for (const char* symbol : {"environ", "__environ"}) {
      if (object->defines(symbol) && (program || !environment)) {
        environment = object->address_of(symbol);
      }
    }
  }
  uintptr_t entry = 0;
  if (!environment || !process.read_memory(*environment, &entry, sizeof entry)) {
    const std::string at_start = process.environment(name);
    return at_start.empty() ? std::nullopt : std::optional(at_start);
  }
  constexpr size_t kMostVariables = 4096;
  for (size_t i = 0; i < kMostVariables; ++i, entry += sizeof entry) {
    uintptr_t variable = 0;
    if (!process.read_memory(entry, &variable, sizeof variable) || variable == 0) break;
    const std::string text = read_text(process, variable, name.size() + 16);
    if (text.compare(0, name.size() + 1, name + "=") == 0) return text.substr(name.size() + 1);
  }
  return std::nullopt;
}

}  // namespace forksafe::cli
