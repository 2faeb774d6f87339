// SPDX-License-Identifier: Apache-2.0
// An ELF file as another process has loaded it. The input is the file.
#include "elf/file.cpp"
#include "elf/image.cpp"
#include "input.h"
#include "process/objects.cpp"

using namespace forksafe;
using namespace forksafe::cli;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::File file;
  const char* const path = file.path(data, size);
  const auto object = Object::open(path, path, 0x10000);
  if (object == nullptr) return 0;
  fuzz::use(object->address_of("function"));
  fuzz::use(object->function_at(object->base() + 0x1000));
  fuzz::use(object->variable_at(object->base() + 0x2000));
  fuzz::use(object->has_thread_local("variable"));
  fuzz::use(object->find_text("OpenBLAS "));
  fuzz::use(object->highest_version("GOMP_"));
  fuzz::use(object->tls_size() + object->tls_image_size());
  fuzz::use(object->unwind_table());
  if (const void* byte = object->constant(object->base() + 0x1000, 16)) {
    char bytes[16];
    memcpy(bytes, byte, sizeof bytes);
    fuzz::use(bytes);
  }
  return 0;
}
