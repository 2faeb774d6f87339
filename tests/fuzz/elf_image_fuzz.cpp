// SPDX-License-Identifier: Apache-2.0
// ElfImage on an object that the dynamic linker has mapped. The input is the object as it lies in
// memory, with its ELF header and program headers in front. The linker has mapped every segment, so
// segments that do not lie in the input are left out.
#include <sanitizer/asan_interface.h>

#include <vector>

#include "elf/image.cpp"
#include "input.h"

using namespace forksafe;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < sizeof(ElfW(Ehdr))) return 0;
  // A mapping begins at a page. What is behind the input must not be read.
  constexpr size_t kMost = 1 << 20;
  static auto* const memory = static_cast<uint8_t*>(aligned_alloc(4096, kMost));
  if (size > kMost) return 0;
  __asan_unpoison_memory_region(memory, kMost);
  memcpy(memory, data, size);
  __asan_poison_memory_region(memory + size, kMost - size);

  ElfW(Ehdr) header;
  memcpy(&header, data, sizeof header);
  std::vector<ElfW(Phdr)> headers;
  for (size_t i = 0; i < header.e_phnum && i < 64; ++i) {
    ElfW(Phdr) p;
    const size_t at = header.e_phoff + i * sizeof p;
    if (at > size || size - at < sizeof p) break;
    memcpy(&p, data + at, sizeof p);
    const bool mapped = p.p_vaddr <= size && p.p_memsz <= size - p.p_vaddr;
    if (p.p_type != PT_LOAD || mapped) headers.push_back(p);
  }
  dl_phdr_info info = {};
  info.dlpi_addr = reinterpret_cast<uintptr_t>(memory);
  info.dlpi_name = "";
  info.dlpi_phdr = headers.data();
  info.dlpi_phnum = static_cast<ElfW(Half)>(headers.size());
  ElfImage image;
  if (!image.read(info)) return 0;
  for (const char* name : {"variable", "function", "missing", "", "openblas_get_config"}) {
    fuzz::use(image.find(name));
    fuzz::use(image.imports(name));
  }
  size_t length = 0;
  image.any_symbol([&](const char* name, const Symbol& symbol) {
    length += strlen(name) + symbol.size;
    return image.find(name).address == symbol.address && false;
  });
  image.each_slot([&](const char* name, void** slot) {
    length += strlen(name);
    fuzz::use(*slot);
  });
  image.each_needed([&](const char* name) { length += strlen(name); });
  fuzz::use(length);
  fuzz::use(image.needs(image));
  fuzz::use(image.static_tls());
  if (image.soname() != nullptr) fuzz::use(strlen(image.soname()));
  return 0;
}
