// SPDX-License-Identifier: Apache-2.0
// The symbol table of a file. The input is the file.
#include "elf/file.cpp"
#include "input.h"

using namespace forksafe;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // As a mapping it begins at a page, and what is behind it must not be read.
  void* copy = nullptr;
  if (posix_memalign(&copy, 4096, size) != 0) abort();
  memcpy(copy, data, size);
  size_t length = 0;
  walk(MappedFile{static_cast<char*>(copy), size}, [&](const char* name, const ElfW(Sym) & symbol) {
    length += strlen(name) + symbol.st_size;
  });
  fuzz::use(length);
  free(copy);
  return 0;
}
