// SPDX-License-Identifier: Apache-2.0
#include "elf/file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "descriptor.h"
#include "futex.h"

namespace forksafe {
namespace {

// A larger symbol table is damaged or made to harm: it would have ten million symbols. A file with
// holes may claim any size.
constexpr size_t kMaxTable = size_t{256} << 20;

struct MappedFile {
  const char* data = nullptr;
  size_t size = 0;

  bool fits(size_t offset, size_t bytes) const { return offset <= size && bytes <= size - offset; }
};

// Calls `visit(name, symbol)` for each defined symbol of .symtab.
template <typename Visit>
bool walk(const MappedFile& file, Visit visit) {
  if (!file.fits(0, sizeof(ElfW(Ehdr)))) return false;
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(file.data);
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_shentsize != sizeof(ElfW(Shdr)) ||
      header->e_shoff % alignof(ElfW(Shdr)) != 0 ||
      !file.fits(header->e_shoff, size_t{header->e_shnum} * sizeof(ElfW(Shdr)))) {
    return false;
  }
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(file.data + header->e_shoff);
  for (size_t i = 0; i < header->e_shnum; ++i) {
    const ElfW(Shdr)& table = sections[i];
    if (table.sh_type != SHT_SYMTAB) continue;
    if (table.sh_link >= header->e_shnum || table.sh_offset % alignof(ElfW(Sym)) != 0) return false;
    const ElfW(Shdr)& strings = sections[table.sh_link];
    if (table.sh_size > kMaxTable || !file.fits(table.sh_offset, table.sh_size) ||
        strings.sh_size == 0 || !file.fits(strings.sh_offset, strings.sh_size) ||
        file.data[strings.sh_offset + strings.sh_size - 1] != '\0') {
      return false;
    }
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(file.data + table.sh_offset);
    for (size_t k = 1; k < table.sh_size / sizeof *symbols; ++k) {
      const ElfW(Sym)& s = symbols[k];
      if (s.st_shndx == SHN_UNDEF || s.st_name >= strings.sh_size) continue;
      visit(file.data + strings.sh_offset + s.st_name, s);
    }
    return true;
  }
  return false;
}

template <typename Visit>
bool walk_file(const char* path, Visit visit) {
  const KeepErrno keep;
  const int fd = open_to_read(*path != '\0' ? path : "/proc/self/exe");
  if (fd < 0) return false;
  // Not fstat: its name in libc is newer than glibc 2.31.
  const off_t size = lseek(fd, 0, SEEK_END);
  MappedFile file;
  bool walked = false;
  if (size > 0) {
    file.size = static_cast<size_t>(size);
    void* data = mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data != MAP_FAILED) {
      file.data = static_cast<const char*>(data);
      walked = walk(file, visit);
      munmap(data, file.size);
    }
  }
  close_descriptor(fd);
  return walked;
}

}  // namespace

bool each_file_symbol(const char* path,
                      void (*visit)(const char* name, uintptr_t value, size_t size, void* context),
                      void* context) {
  return walk_file(path, [&](const char* name, const ElfW(Sym) & s) {
    const unsigned type = ELF64_ST_TYPE(s.st_info);
    if (type == STT_OBJECT || type == STT_FUNC) visit(name, s.st_value, s.st_size, context);
  });
}

ThreadLocal find_file_thread_local(const char* path, const char* name) {
  ThreadLocal result;
  walk_file(path, [&](const char* found, const ElfW(Sym) & s) {
    if (ELF64_ST_TYPE(s.st_info) == STT_TLS && strcmp(found, name) == 0) {
      result = {s.st_value, s.st_size};
    }
  });
  return result;
}

}  // namespace forksafe
