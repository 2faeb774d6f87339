// SPDX-License-Identifier: Apache-2.0
#include "runtimes/openblas/internals.h"

#include <cstring>

#include "elf/file.h"
#include "number.h"
#include "options.h"

namespace forksafe {
namespace {

// The name has a prefix (scipy_) and a suffix (64_) in some builds.
void* find_get_config(const ElfImage& image) {
  void* result = image.find("openblas_get_config").address;
  if (result != nullptr) return result;
  image.any_symbol([&](const char* name, const Symbol& symbol) {
    if (strstr(name, "openblas_get_config") == nullptr) return false;
    result = symbol.address;
    return true;
  });
  return result;
}

// "OpenBLAS 0.3.21 NO_AFFINITY ... MAX_THREADS=64": the format of every version since 0.3.4.
void read_config(const char* config, Internals* result) {
  const char* number = strstr(config, "OpenBLAS ");
  if (number != nullptr) {
    const char* end = nullptr;
    number += strlen("OpenBLAS ");
    const long major = parse_number(number, &end);
    const long minor = *end == '.' ? parse_number(end + 1, &end) : 0;
    const long patch = *end == '.' ? parse_number(end + 1, &end) : 0;
    result->version = static_cast<int>(major * 10000 + minor * 100 + patch);
  }
  const char* threads = strstr(config, "MAX_THREADS=");
  if (threads != nullptr) {
    result->max_threads = static_cast<int>(parse_number(threads + strlen("MAX_THREADS=")));
  }
  // 0.3.1 to 0.3.3 were built with USE_TLS by default.
  result->buffers_have_headers = result->version < 304 || strstr(config, "USE_TLS") != nullptr;
}

Range range_of(const void* function, size_t size) {
  const auto begin = reinterpret_cast<uintptr_t>(function);
  return {begin, begin + size};
}

struct Reading {
  const ElfImage* image;
  Internals internals;
  bool shutdown_is_named;  // a symbol table has blas_thread_shutdown_ where the handler is
};

void take_symbol(Reading* reading, const char* name, void* address, size_t size) {
  Internals* i = &reading->internals;
  if (address == reinterpret_cast<void*>(i->shutdown)) {
    // blas_thread_shutdown_64_ in some builds with 64-bit integers.
    const char* const shutdown = "blas_thread_shutdown";
    if (strncmp(name, shutdown, strlen(shutdown)) == 0) reading->shutdown_is_named = true;
  } else if (strcmp(name, "blas_memory_alloc") == 0) {
    i->memory_alloc = range_of(address, size);
  } else if (strcmp(name, "blas_memory_free") == 0) {
    i->memory_free = reinterpret_cast<void (*)(void*)>(address);
  } else if (strcmp(name, "blas_cpu_number") == 0) {
    i->cpu_number = static_cast<int*>(address);
  } else if (strcmp(name, "blas_num_threads") == 0) {
    i->num_threads = static_cast<int*>(address);
  } else if (strcmp(name, "alloc_mmap") == 0) {
    i->alloc_mmap = range_of(address, size);
  } else if (strcmp(name, "alloc_lock") == 0) {
    i->alloc_lock = address;
  } else if (strcmp(name, "exec_queue_lock") == 0) {
    // A spin lock of one word. In 0.3.34 it is a mutex, which the doors see like any other.
    i->exec_queue_is_named = true;
    if (size == sizeof(long)) i->exec_queue_lock = static_cast<unsigned long*>(address);
  } else if (strncmp(name, "CPU_AVAILABLE", strlen("CPU_AVAILABLE")) == 0 && size == sizeof(long) &&
             i->cpu_available_count < Internals::kMaxCounters) {
    i->cpu_available[i->cpu_available_count++] = static_cast<long*>(address);
  }
}

void read_symbols(Reading* reading) {
  // .dynsym is in memory. Hidden and static symbols are in the file, unless it is stripped.
  for (const char* name :
       {"blas_memory_alloc", "blas_memory_free", "blas_cpu_number", "blas_num_threads",
        "blas_thread_shutdown_", "blas_thread_shutdown_64_"}) {
    const Symbol symbol = reading->image->find(name);
    if (symbol.address != nullptr) take_symbol(reading, name, symbol.address, symbol.size);
  }
  if (!options().opens_files) return;
  const Reading from_memory = *reading;
  reading->shutdown_is_named = false;
  const bool walked = each_file_symbol(
      reading->image->path(),
      [](const char* name, uintptr_t value, size_t size, void* context) {
        auto* r = static_cast<Reading*>(context);
        void* address = reinterpret_cast<void*>(r->image->base() + value);
        if (r->image->span().contains(address)) take_symbol(r, name, address, size);
      },
      reading);
  // The path may have another file by now.
  if (!walked || !reading->shutdown_is_named) *reading = from_memory;
}

}  // namespace

bool is_openblas(const ElfImage& image) { return find_get_config(image) != nullptr; }

bool read_internals(const ElfImage& image, void (*prepare)(), Internals* result) {
  void* get_config = find_get_config(image);
  if (get_config == nullptr) return false;
  static Reading reading = {};  // too large for a small stack; the linker's lock serialises us
  reading = {};
  reading.image = &image;
  reading.internals.shutdown = prepare;
  reading.internals.openmp = image.imports("GOMP_parallel") || image.imports("__kmpc_fork_call");
  read_config(reinterpret_cast<const char* (*)()>(get_config)(), &reading.internals);
  read_symbols(&reading);
  *result = reading.internals;
  // A library may have OpenBLAS linked in, and a prepare handler of its own.
  return reading.shutdown_is_named;
}

}  // namespace forksafe
