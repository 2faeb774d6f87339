// SPDX-License-Identifier: Apache-2.0
#include "loaded_objects.h"

#include <dlfcn.h>

#include <cstring>

#include "futex.h"

namespace forksafe {
namespace {

// Link maps are appended in the order of loading, so the first of them are those of the start.
size_t startup_objects = 0;

bool is_ours(const ElfImage& image) {
  return image.span().contains(reinterpret_cast<const void*>(&is_ours));
}

// The first definition of `name` among the objects that `accept(object, index)` takes.
template <typename Accept>
void* find_among(const char* name, Accept accept) {
  void* result = nullptr;
  size_t index = 0;
  each_loaded_object([&](const ElfImage& object, size_t, const ElfW(Phdr)*) {
    if (!is_ours(object) && accept(object, index)) result = object.find(name).address;
    // Another copy of this library would find us in turn.
    if (result != nullptr && object.find("forksafe_state").address != nullptr) result = nullptr;
    ++index;
    return result == nullptr;
  });
  return result;
}

size_t count_objects() {
  size_t count = 0;
  each_loaded_object([&](const ElfImage&, size_t, const ElfW(Phdr)*) {
    ++count;
    return true;
  });
  return count;
}

}  // namespace

LoadCounters load_counters() {
  LoadCounters counters;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        *static_cast<LoadCounters*>(data) = {info->dlpi_adds, info->dlpi_subs};
        return 1;
      },
      &counters);
  return counters;
}

bool find_object(const void* address, ElfImage* image) {
  bool found = false;
  each_loaded_object([&](const ElfImage& object, size_t, const ElfW(Phdr)*) {
    found = object.span().contains(address);
    if (found) *image = object;
    return !found;
  });
  return found;
}

void* find_function(const char* name) {
  return find_among(name, [](const ElfImage&, size_t) { return true; });
}

void* resolve(const ElfImage& image, const char* name) {
  void* result = find_among(name, [](const ElfImage&, size_t i) { return i < startup_objects; });
  if (result == nullptr) result = image.find(name).address;
  if (result == nullptr) {
    result = find_among(name, [&](const ElfImage& object, size_t) { return image.needs(object); });
  }
  return result != nullptr ? result : find_function(name);
}

bool pin(const ElfImage& image) {
  bool from_start = false;
  size_t index = 0;
  each_loaded_object([&](const ElfImage& object, size_t, const ElfW(Phdr)*) {
    from_start = index < startup_objects && object.base() == image.base();
    ++index;
    return !from_start && index < startup_objects;
  });
  if (from_start) return true;

  // Before glibc 2.34 dlopen is in libdl, which whoever loaded this object has loaded.
  using Dlopen = void* (*)(const char*, int);
  const auto open = reinterpret_cast<Dlopen>(find_function("dlopen"));
  const KeepErrno keep;
  return open != nullptr && open(image.path(), RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE) != nullptr;
}

void remember_startup_objects() { startup_objects = count_objects(); }

}  // namespace forksafe
