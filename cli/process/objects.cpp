// SPDX-License-Identifier: Apache-2.0
#include "process/objects.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/words.h"
#include "elf/file.h"
#include "process/core.h"
#include "process/debug_file.h"

namespace forksafe::cli {
namespace {

// Larger than any library. A file that claims more is damaged, and to search it takes too long.
constexpr uint64_t kMaxSpan = uint64_t{1} << 32;

// All names of a file. More of them is damaged: all of its symbols may have the same long name.
constexpr size_t kMaxNames = size_t{256} << 20;

// The symbols of a file, until their names are too long.
struct Symbols {
  std::vector<NamedRange>* found;
  size_t left = kMaxNames;

  void add(const char* name, uintptr_t value, size_t size) {
    const size_t length = strnlen(name, left);
    left -= length;
    if (left > 0) found->push_back({{value, value + size}, std::string(name, length)});
  }
};

// Tells two files apart, and a file before and after it is written.
using Identity = std::tuple<dev_t, ino_t, off_t, time_t, long>;

}  // namespace

std::unique_ptr<Object> Object::open(const std::string& file, const std::string& path,
                                     uintptr_t first_byte, const std::string& root,
                                     std::optional<uint64_t> inode, size_t page) {
  static std::map<std::pair<Identity, std::string>, std::weak_ptr<Content>> known;
  struct stat info = {};
  if (stat(file.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return nullptr;
  if (inode && info.st_ino != *inode) return nullptr;
  const Identity identity = {info.st_dev, info.st_ino, info.st_size, info.st_mtim.tv_sec,
                             info.st_mtim.tv_nsec};
  const auto entry = known.find({identity, path});
  std::shared_ptr<Content> content = entry != known.end() ? entry->second.lock() : nullptr;
  if (content == nullptr) {
    content = read(file, path, page);
    if (content == nullptr) return nullptr;
    // --watch looks for months, at ever new files.
    for (auto e = known.begin(); e != known.end();) {
      e = e->second.expired() ? known.erase(e) : std::next(e);
    }
    known[{identity, path}] = content;
  }
  // The process of the earlier path may have ended.
  content->file = file;
  content->root = root;
  return std::unique_ptr<Object>(new Object(std::move(content), first_byte));
}

Object::Object(std::shared_ptr<Content> content, uintptr_t first_byte)
    : content_(std::move(content)),
      base_(first_byte - content_->span.begin),
      span_{first_byte, base_ + content_->span.end} {}

std::shared_ptr<Object::Content> Object::read(const std::string& file, const std::string& path,
                                              size_t page) {
  const File f(file);
  struct stat info = {};
  ElfW(Ehdr) header = {};
  if (f.fd() < 0 || fstat(f.fd(), &info) != 0 || !S_ISREG(info.st_mode) || !f.read(0, &header) ||
      memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != (sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32) ||
      header.e_phentsize != sizeof(ElfW(Phdr)) || header.e_phnum == 0) {
    return nullptr;
  }
  auto content = std::make_shared<Content>();
  content->path = path;
  content->headers.resize(header.e_phnum);
  if (!f.read(header.e_phoff, content->headers.data(), header.e_phnum)) return nullptr;

  Range& span = content->span;
  const auto size = static_cast<uintptr_t>(info.st_size);
  for (const ElfW(Phdr) & p : content->headers) {
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

  // Map zeros first: a segment may be larger in memory than in the file.
  content->mapping_size = span.end - span.begin;
  content->mapping = mmap(nullptr, content->mapping_size, PROT_READ,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (content->mapping == MAP_FAILED) {
    content->mapping = nullptr;
    return nullptr;
  }
  auto* start = static_cast<char*>(content->mapping);
  for (const ElfW(Phdr) & p : content->headers) {
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
  described.dlpi_name = content->path.c_str();
  described.dlpi_phdr = content->headers.data();
  described.dlpi_phnum = header.e_phnum;
  if (!content->image.read(described)) return nullptr;
  return content;
}

Object::Content::~Content() {
  if (mapping != nullptr) munmap(mapping, mapping_size);
}

std::string Object::name() const { return path().substr(path().rfind('/') + 1); }

bool Object::is(bool (*question)(const Object& object)) const {
  const auto known = content_->answers.find(question);
  if (known != content_->answers.end()) return known->second;
  return content_->answers[question] = question(*this);
}

const std::vector<NamedRange>& Object::symbols() const {
  Content& c = *content_;
  if (c.symbols_read) return c.symbols;
  c.symbols_read = true;
  Symbols symbols{&c.symbols};
  const auto read = [&symbols](const std::string& file) {
    return each_file_symbol(
        file.c_str(),
        [](const char* name, uintptr_t value, size_t size, void* context) {
          static_cast<Symbols*>(context)->add(name, value, size);
        },
        &symbols);
  };
  c.has_symbol_table = read(c.file);
  const std::string debug_file = c.has_symbol_table ? "" : find_debug_file(c.root, c.path, c.file);
  if (!c.has_symbol_table && (debug_file.empty() || !read(debug_file))) {
    image().any_symbol([&](const char* name, const Symbol& s) {
      const uintptr_t value = reinterpret_cast<uintptr_t>(s.address) - image().base();
      symbols.add(name, value, s.size);
      return false;
    });
  }
  std::stable_sort(
      c.symbols.begin(), c.symbols.end(),
      [](const NamedRange& a, const NamedRange& b) { return a.range.begin < b.range.begin; });
  return c.symbols;
}

bool Object::has_symbol_table() const {
  symbols();
  return content_->has_symbol_table;
}

bool Object::has_thread_local(const char* name) const {
  return find_file_thread_local(content_->file.c_str(), name).size != 0;
}

std::optional<uintptr_t> Object::address_of(const char* name) const {
  const Symbol symbol = image().find(name);
  if (symbol.address != nullptr) {
    return reinterpret_cast<uintptr_t>(symbol.address) - image().base() + base_;
  }
  for (const NamedRange& s : symbols()) {
    if (s.name == name) return base_ + s.range.begin;
  }
  return std::nullopt;
}

NamedBy Object::named_by(const char* name) const {
  if (defines(name)) return NamedBy::kDynamicSymbols;
  if (!address_of(name)) return NamedBy::kNothing;
  return has_symbol_table() ? NamedBy::kSymbolTable : NamedBy::kDebugFile;
}

std::string Object::function_at(uintptr_t address) const {
  const uintptr_t value = address - base_;
  const auto next =
      std::upper_bound(symbols().begin(), symbols().end(), value,
                       [](uintptr_t v, const NamedRange& s) { return v < s.range.begin; });
  // Aliases begin at the same address: take the first in the table.
  std::string result;
  for (auto s = next; s != symbols().begin();) {
    --s;
    if (s->range.begin != (next - 1)->range.begin) break;
    if (s->range.contains(value)) result = s->name;
  }
  return result;
}

std::string Object::variable_at(uintptr_t address) const {
  for (const NamedRange& s : symbols()) {
    if (s.range.begin == address - base_) return s.name;
  }
  return "";
}

std::string Object::find_text(const std::string& prefix) const {
  for (const ElfW(Phdr) & p : content_->headers) {
    if (p.p_type != PT_LOAD || (p.p_flags & PF_X) != 0) continue;
    const auto* begin = reinterpret_cast<const char*>(image().base() + p.p_vaddr);
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
  image().any_symbol([&](const char* name, const Symbol&) {
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
  for (const ElfW(Phdr) & p : content_->headers) {
    if (p.p_type != PT_LOAD || (p.p_flags & PF_W) != 0 || value < p.p_vaddr) continue;
    if (value - p.p_vaddr < p.p_filesz && size <= p.p_filesz - (value - p.p_vaddr)) {
      return reinterpret_cast<const void*>(image().base() + value);
    }
  }
  return nullptr;
}

size_t Object::tls_size() const {
  for (const ElfW(Phdr) & p : content_->headers) {
    if (p.p_type == PT_TLS) return p.p_memsz;
  }
  return 0;
}

size_t Object::tls_image_size() const {
  for (const ElfW(Phdr) & p : content_->headers) {
    if (p.p_type == PT_TLS) return p.p_filesz;
  }
  return 0;
}

Range Object::unwind_table() const {
  for (const ElfW(Phdr) & p : content_->headers) {
    if (p.p_type == PT_GNU_EH_FRAME) return {base_ + p.p_vaddr, base_ + p.p_vaddr + p.p_memsz};
  }
  return {};
}

namespace {

// The ELF file that was loaded there; null if it was another kind of file. Throws Error if that is
// not the file that is here now.
std::unique_ptr<Object> open_from_core(const Process& process, const Mapping& mapping) {
  const auto refuse = [&](const char* what) {
    throw Error(
        fmt::format("core {}: {}, which the process had loaded, {}: read the core where it "
                    "was written, with the same packages",
                    process.core()->path(), mapping.path, what));
  };
  char in_core[4096];
  if (!process.read_memory(mapping.begin, in_core, sizeof in_core) ||
      memcmp(in_core, ELFMAG, SELFMAG) != 0) {
    return nullptr;
  }
  struct stat info = {};
  // A device or a pipe must not even be opened.
  if (stat(mapping.path.c_str(), &info) != 0) refuse("is missing here");
  if (!S_ISREG(info.st_mode)) refuse("is no file here");
  char here[sizeof in_core] = {};
  if (pread(File(mapping.path).fd(), here, sizeof here, 0) <= 0) refuse("can't be read here");
  // The page has the headers, and in most files the build id.
  auto object = Object::open(mapping.path, mapping.path, mapping.begin);
  if (object == nullptr || memcmp(in_core, here, sizeof here) != 0) refuse("has changed since");
  return object;
}

}  // namespace

Objects::Objects(const Process& process) {
  const std::string root = process.root();
  for (const Mapping& m : process.mappings()) {
    if (m.offset != 0) continue;
    if (!objects_.empty() && objects_.back()->span().contains(m.begin)) continue;
    // If the file was replaced, the path leads to another file. Only root can reach the mapped one.
    std::unique_ptr<Object> object;
    if (process.core() != nullptr) {
      object = open_from_core(process, m);
    } else if (!m.deleted) {
      object = Object::open(root + m.path, m.path, m.begin, root, m.inode);
    }
    if (object == nullptr && process.core() == nullptr) {
      const auto file = fmt::format("/proc/{}/map_files/{:x}-{:x}", process.pid(), m.begin, m.end);
      object = Object::open(file, m.path, m.begin, root);
    }
    if (object == nullptr) {
      // Only a library's name tells: any file may have been mapped and removed.
      if (m.deleted && m.path.find(".so") != std::string::npos) unread_.push_back(m.path);
      continue;
    }
    if (m.path == process.program()) program_ = object.get();
    objects_.push_back(std::move(object));
  }
  if (process.core() != nullptr && program_ == nullptr) {
    throw Error(
        fmt::format("core {}: it does not hold the first page of each loaded file, by which "
                    "files are compared (/proc/PID/coredump_filter, bit 4)",
                    process.core()->path()));
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
  for (const char* prefix : {"libc.so", "libc-2", "libpthread"}) {
    if (starts_with(name, prefix)) return true;
  }
  return is_loader(name);
}

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
    const std::string text = process.read_text(variable, name.size() + 16);
    if (text.compare(0, name.size() + 1, name + "=") == 0) return text.substr(name.size() + 1);
  }
  return std::nullopt;
}

}  // namespace forksafe::cli
