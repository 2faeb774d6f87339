// SPDX-License-Identifier: Apache-2.0
#include "elf/loaded_objects.h"

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

bool is_from_start(const ElfImage& image) {
  bool result = false;
  size_t index = 0;
  each_loaded_object([&](const ElfImage& object, size_t, const ElfW(Phdr)*) {
    result = index < startup_objects && object.base() == image.base();
    ++index;
    return !result && index < startup_objects;
  });
  return result;
}

// Objects whose constructors wait for their turn in a dlopen, and an address in the one whose turn
// it is. The linker's lock serialises what dlopens.
Range waiting[16];
const void* initialising = nullptr;

// What the linker had loaded when each_new_object last looked.
struct Seen {
  unsigned long long adds;  // the linker's two counters
  unsigned long long subs;
  size_t count;   // of the objects in our namespace
  uint64_t last;  // identity of the last of them in the linker's list for debuggers
};
Seen seen = {};

// Which objects those were. The name belongs to it, since after an unload another object may have
// the same address.
constexpr size_t kMostRemembered = 4096;
uint64_t remembered[2][kMostRemembered];
int remembers = 0;

uint64_t identity(uintptr_t base, const char* name) {
  uint64_t hash = 0xcbf29ce484222325ULL ^ base;  // FNV-1a
  for (; name != nullptr && *name != '\0'; ++name) {
    hash = (hash ^ static_cast<unsigned char>(*name)) * 0x100000001b3ULL;
  }
  return hash;
}

// After an unload the other objects are still in the same order. `*position` follows them.
bool is_remembered(uint64_t object, size_t* position) {
  const size_t count = seen.count < kMostRemembered ? seen.count : kMostRemembered;
  for (size_t i = *position; i < count; ++i) {
    if (remembered[remembers][i] != object) continue;
    *position = i + 1;
    return true;
  }
  return false;
}

bool came_by_fork = false;
bool has_loaded = false;  // in this process, since it came by fork
const r_debug* debugger_list = nullptr;

// Reads the linker's list for debuggers without the linker's lock. The calling thread is in the
// linker, or is the only thread.
void read_list(size_t* count, uint64_t* last) {
  *count = 0;
  *last = 0;
  if (debugger_list == nullptr) return;
  const link_map* map = debugger_list->r_map;
  for (; map != nullptr; map = map->l_next) {
    ++*count;
    if (map->l_next == nullptr) {
      *last = identity(map->l_addr ^ reinterpret_cast<uintptr_t>(map), map->l_name);
    }
  }
}

// For a thread that is in the linker, in a process that came by fork. Usually the process has
// loaded something. The rare exception: the constructor of a library has forked, and the child goes
// on in the linker as the parent does.
void see_what_child_loads() {
  size_t count;
  uint64_t last;
  read_list(&count, &last);
  has_loaded = debugger_list == nullptr || count != seen.count || last != seen.last;
}

enum class From { kFirst, kBehindUs };

// The first definition of `name` among the objects that `accept(object, index)` takes.
template <typename Accept>
void* find_among(const char* name, Accept accept, From from = From::kFirst) {
  void* result = nullptr;
  size_t index = 0;
  bool reached = from == From::kFirst;
  each_loaded_object([&](const ElfImage& object, size_t, const ElfW(Phdr)*) {
    if (is_ours(object)) {
      reached = true;
    } else if (reached && accept(object, index)) {
      result = object.find(name).address;
    }
    // Another copy of this library would find us in turn.
    if (result != nullptr && object.find("forksafe_state").address != nullptr) result = nullptr;
    ++index;
    return result == nullptr;
  });
  return result;
}

bool any_object(const ElfImage&, size_t) { return true; }

bool is_libc(const ElfImage& object, size_t) {
  const char* name = object.soname();
  return name != nullptr && (strcmp(name, "libc.so.6") == 0 || strcmp(name, "libdl.so.2") == 0);
}

}  // namespace

bool each_new_object(void (*see)(const ElfImage& image, size_t tls_module,
                                 const ElfW(Phdr) * tls)) {
  if (came_by_fork && !has_loaded) see_what_child_loads();
  if (!may_ask_linker()) return false;
  if (debugger_list == nullptr) {
    debugger_list = static_cast<const r_debug*>(find_function("_r_debug"));
  }
  const int next = 1 - remembers;
  size_t index = 0;
  size_t position = 0;
  Seen now = {};
  each_object_info([&](const dl_phdr_info& info) {
    if (index == 0) {
      now.adds = info.dlpi_adds;
      now.subs = info.dlpi_subs;
      if (now.adds == seen.adds && now.subs == seen.subs) return false;
    }
    const uint64_t object = identity(info.dlpi_addr, info.dlpi_name);
    if (index < kMostRemembered) remembered[next][index] = object;
    ++index;
    ElfImage image;
    if (!is_remembered(object, &position) && image.read(info)) {
      see(image, info.dlpi_tls_modid, tls_header(info));
    }
    return true;
  });
  if (index == 0) return false;
  now.count = index;
  size_t listed;
  read_list(&listed, &now.last);
  remembers = next;
  seen = now;
  return true;
}

bool may_ask_linker() { return !came_by_fork || has_loaded; }

void distrust_linker() {
  came_by_fork = true;
  if (has_loaded) has_loaded = false;
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

void* find_function(const char* name) { return find_among(name, any_object); }

void* find_next_function(const char* name) { return find_among(name, any_object, From::kBehindUs); }

void* resolve(const ElfImage& image, const char* name) {
  void* result = find_among(name, [](const ElfImage&, size_t i) { return i < startup_objects; });
  if (result == nullptr) result = image.find(name).address;
  if (result == nullptr) {
    result = find_among(name, [&](const ElfImage& object, size_t) { return image.needs(object); });
  }
  return result != nullptr ? result : find_function(name);
}

bool is_its_turn(const ElfImage& image) {
  if (initialising == nullptr || image.span().contains(initialising)) return true;
  if (is_from_start(image)) return true;
  for (Range& span : waiting) {
    if (span.begin != 0) continue;
    span = image.span();
    break;
  }
  return false;
}

bool turn_of(const void* caller) {
  initialising = caller;
  bool waited = false;
  for (Range& span : waiting) {
    if (!span.contains(caller)) continue;
    span = {};
    waited = true;
  }
  return waited;
}

bool pin(const ElfImage& image) {
  if (is_from_start(image)) return true;

  // Before glibc 2.34 dlopen is in libdl. The code that loaded this object has loaded libdl too.
  // The function of another preloaded library may hold a lock: this thread may be inside it.
  using Dlopen = void* (*)(const char*, int);
  const auto open = reinterpret_cast<Dlopen>(find_among("dlopen", is_libc));
  const KeepErrno keep;
  return open != nullptr && open(image.path(), RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE) != nullptr;
}

void remember_startup_objects() {
  each_loaded_object([](const ElfImage&, size_t, const ElfW(Phdr)*) {
    ++startup_objects;
    return true;
  });
}

}  // namespace forksafe
