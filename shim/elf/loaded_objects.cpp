// SPDX-License-Identifier: Apache-2.0
#include "elf/loaded_objects.h"

#include <dlfcn.h>

#include <cstring>

#include "pages.h"

namespace forksafe {
namespace {

// Link maps are appended in the order of loading, so the first of them are those of the start.
size_t startup_objects = 0;

// The program headers of the program, which is the first of them.
const ElfW(Phdr) * program_headers = nullptr;
ElfW(Half) program_header_count = 0;

bool is_ours(const ElfImage& image) {
  return image.span().contains(reinterpret_cast<const void*>(&is_ours));
}

bool is_from_start(const ElfImage& image) {
  bool result = false;
  size_t index = 0;
  each_object_info([&](const dl_phdr_info& info) {
    result = index < startup_objects && info.dlpi_addr == image.base();
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
  unsigned long long adds;  // the linker's two counters, at the last look at the start
  unsigned long long subs;
  size_t count;  // of the objects in our namespace
};
Seen seen = {};

// Which objects those were, by their identity(). The lowest bit says that the object's own
// constructors were about to run at a look.
constexpr size_t kMostRemembered = 4096;
constexpr uint64_t kInitialised = 1;
uint64_t remembered[2][kMostRemembered];
int remembers = 0;

// The name belongs to it, since after an unload another object may have the same address.
uint64_t identity(uintptr_t base, const char* name) {
  uint64_t hash = 0xcbf29ce484222325ULL ^ base;  // FNV-1a
  for (; name != nullptr && *name != '\0'; ++name) {
    hash = (hash ^ static_cast<unsigned char>(*name)) * 0x100000001b3ULL;
  }
  return hash & ~kInitialised;
}

// What was remembered of an object, or null. After an unload the other objects are still in the
// same order. `*position` follows them.
const uint64_t* find_remembered(uint64_t object, size_t* position) {
  const size_t count = seen.count < kMostRemembered ? seen.count : kMostRemembered;
  for (size_t i = *position; i < count; ++i) {
    const uint64_t* known = &remembered[remembers][i];
    if ((*known & ~kInitialised) != object) continue;
    *position = i + 1;
    return known;
  }
  return nullptr;
}

uint32_t generation = 0;
bool has_loaded = false;  // in this process, since it came by fork

// The linker's list for debuggers, which is its own list of our namespace. Who is in the linker, or
// is the only thread, reads it without the linker's lock. Anybody may read the objects of the start
// so: they stay at its head.
const r_debug* debugger_list = nullptr;

const link_map* first_map() { return debugger_list != nullptr ? debugger_list->r_map : nullptr; }

// Gives the program headers behind the ELF header at `address`, which can be read. False if there
// is none that can be understood.
bool read_headers(uintptr_t address, dl_phdr_info* info) {
  constexpr size_t kSmallestPage = 4096;
  if (address % kSmallestPage != 0) return false;
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(address);
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_phentsize != sizeof(ElfW(Phdr)) ||
      header->e_phoff % alignof(ElfW(Phdr)) != 0 || header->e_phoff > kSmallestPage ||
      header->e_phnum > (kSmallestPage - header->e_phoff) / sizeof(ElfW(Phdr))) {
    return false;
  }
  info->dlpi_phdr = reinterpret_cast<const ElfW(Phdr)*>(address + header->e_phoff);
  info->dlpi_phnum = header->e_phnum;
  return true;
}

// Describes an object without the linker's lock: by its ELF header, which usually is at its base.
// False if the header is not there.
bool read_info(const link_map& map, dl_phdr_info* info) {
  const uintptr_t base = map.l_addr;
  *info = {};
  info->dlpi_addr = base;
  info->dlpi_name = map.l_name;
  if (&map == first_map() && program_headers != nullptr) {  // its base may be 0
    info->dlpi_phdr = program_headers;
    info->dlpi_phnum = program_header_count;
    return true;
  }
  if (base == 0 || !is_readable(base, base + 1) || !read_headers(base, info)) return false;
  for (size_t i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& p = info->dlpi_phdr[i];
    if (p.p_type == PT_DYNAMIC) return base + p.p_vaddr == reinterpret_cast<uintptr_t>(map.l_ld);
  }
  return false;
}

bool covers(const dl_phdr_info& info, const void* address) {
  const uintptr_t offset = reinterpret_cast<uintptr_t>(address) - info.dlpi_addr;
  for (size_t i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& p = info.dlpi_phdr[i];
    if (p.p_type == PT_LOAD && offset - p.p_vaddr < p.p_memsz) return true;
  }
  return false;
}

// Gives `use` what the linker says of one object.
template <typename Use>
void ask_linker_about(uintptr_t base, const char* name, Use use) {
  each_object_info([&](const dl_phdr_info& info) {
    const bool is_it = info.dlpi_addr == base && strcmp(info.dlpi_name, name) == 0;
    if (is_it) use(info);
    return !is_it;
  });
}

bool read_image(const link_map& map, ElfImage* image) {
  dl_phdr_info own = {};
  if (read_info(map, &own)) return image->read(own);
  bool result = false;
  ask_linker_about(map.l_addr, map.l_name,
                   [&](const dl_phdr_info& info) { result = image->read(info); });
  return result;
}

// The one of the first `count` objects that has the last base before `address`. Null for null: the
// base of a program at a fixed address is 0. So is that of QEMU's vDSO (11.1), wherever it lies.
const link_map* map_before(const void* address, size_t count) {
  if (address == nullptr) return nullptr;
  const link_map* result = nullptr;
  const link_map* map = first_map();
  for (size_t i = 0; map != nullptr && i < count; map = map->l_next, ++i) {
    if (map->l_addr == 0 && map != first_map()) continue;
    if (map->l_addr <= reinterpret_cast<uintptr_t>(address) &&
        (result == nullptr || result->l_addr < map->l_addr)) {
      result = map;
    }
  }
  return result;
}

// Whether a thread that is about to run the constructors of the object that holds `caller` is in
// dlopen, and not at the start of the process.
bool is_in_dlopen(const void* caller) {
  const link_map* map = map_before(caller, startup_objects);
  dl_phdr_info info = {};
  // ld.so PROGRAM maps the objects of the start so high that others lie below them all.
  if (map == nullptr) return caller != nullptr && startup_objects != 0;
  return read_info(*map, &info) && !covers(info, caller);
}

// Whether its own constructors were about to run at an earlier look. Constructors run once: if they
// run again, the object was unloaded, and came again at the same address.
bool was_initialised(uint64_t known) { return (known & kInitialised) != 0; }

const uint64_t* find_known(const link_map& map) {
  size_t position = 0;
  return find_remembered(identity(map.l_addr, map.l_name), &position);
}

// For a thread that is in the linker, in a process that came by fork. Usually the process has
// loaded something: the linker appends that. The rare exception: the constructor of a library has
// forked, and the child goes on in the linker as the parent does. An object at the end that is
// known proves nothing, even if it came again: the parent may have loaded it before the fork.
void see_what_child_loads() {
  const link_map* last = first_map();
  while (last != nullptr && last->l_next != nullptr) last = last->l_next;
  has_loaded = last == nullptr || (seen.count <= kMostRemembered && find_known(*last) == nullptr);
}

void remember(size_t index, uint64_t object) {
  if (index < kMostRemembered) remembered[1 - remembers][index] = object;
}

// At the start of the process another thread may load something, if the constructor of a library
// has made one. So this look needs the linker's lock.
bool each_new_at_start(void (*see)(const ElfImage& image)) {
  size_t index = 0;
  size_t position = 0;
  bool any = false;
  Seen now = {};
  each_object_info([&](const dl_phdr_info& info) {
    if (index == 0) {
      now.adds = info.dlpi_adds;
      now.subs = info.dlpi_subs;
      if (now.adds == seen.adds && now.subs == seen.subs) return false;
    }
    const uint64_t object = identity(info.dlpi_addr, info.dlpi_name);
    const uint64_t* known = find_remembered(object, &position);
    remember(index++, known != nullptr ? *known : object);
    any = any || known == nullptr;
    ElfImage image;
    if (known == nullptr && image.read(info)) see(image);
    return true;
  });
  if (index == 0) return false;
  now.count = index;
  remembers = 1 - remembers;
  seen = now;
  return any;
}

// In dlopen nobody else changes the list. The linker's lock is not taken: if another thread forks
// meanwhile, the child's own dlopen would find it taken, and hang. glibc itself takes it for some
// nanoseconds only when it loads something.
bool each_new_in_dlopen(const void* caller, void (*see)(const ElfImage& image)) {
  const link_map* const initialising_map = map_before(caller, SIZE_MAX);
  size_t index = 0;
  size_t position = 0;
  bool any = false;
  for (const link_map* map = first_map(); map != nullptr; map = map->l_next) {
    uint64_t object = identity(map->l_addr, map->l_name);
    const uint64_t* known = find_remembered(object, &position);
    if (known != nullptr) object = *known;
    bool is_new = known == nullptr;
    if (map == initialising_map) {
      is_new = is_new || was_initialised(object);
      object |= kInitialised;
    }
    remember(index++, object);
    any = any || is_new;
    ElfImage image;
    if (is_new && read_image(*map, &image)) see(image);
  }
  remembers = 1 - remembers;
  seen.count = index;
  return any;
}

enum class From { kFirst, kBehindUs };

// The first definition of `name` among the objects that `accept(object, index)` takes.
template <typename Accept>
void* find_among(const char* name, Accept accept, From from = From::kFirst) {
  void* result = nullptr;
  size_t index = 0;
  bool reached = from == From::kFirst;
  each_object_info([&](const dl_phdr_info& info) {
    const size_t own = index++;
    ElfImage object;
    if (!object.read(info)) return true;
    if (is_ours(object)) {
      reached = true;
    } else if (reached && accept(object, own)) {
      result = object.find(name).address;
    }
    // Another copy of this library would find us in turn.
    if (result != nullptr && object.find("forksafe_state").address != nullptr) result = nullptr;
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

bool each_new_object(const void* caller, void (*see)(const ElfImage& image)) {
  if (generation != 0 && !has_loaded) see_what_child_loads();
  if (!may_ask_linker()) return false;
  if (debugger_list == nullptr) {
    debugger_list = static_cast<const r_debug*>(find_function("_r_debug"));
  }
  return is_in_dlopen(caller) ? each_new_in_dlopen(caller, see) : each_new_at_start(see);
}

bool came_again(const void* caller, ElfImage* image) {
  const link_map* const map = map_before(caller, SIZE_MAX);
  const uint64_t* const known = map != nullptr ? find_known(*map) : nullptr;
  dl_phdr_info info = {};
  return known != nullptr && was_initialised(*known) && read_info(*map, &info) && image->read(info);
}

bool may_ask_linker() { return generation == 0 || has_loaded; }

void distrust_linker() {
  ++generation;
  if (has_loaded) has_loaded = false;
}

uint32_t process_generation() { return generation; }

size_t tls_module_of(const ElfImage& image) {
  size_t result = 0;
  ask_linker_about(image.base(), image.path(),
                   [&](const dl_phdr_info& info) { result = info.dlpi_tls_modid; });
  return result;
}

bool find_object(const void* address, ElfImage* image) {
  bool found = false;
  each_loaded_object([&](const ElfImage& object) {
    found = object.span().contains(address);
    if (found) *image = object;
    return !found;
  });
  return found;
}

bool find_object_by_header(const void* address, ElfImage* image) {
  constexpr size_t kFarthest = size_t{1} << 30;
  uint32_t magic;
  memcpy(&magic, ELFMAG, sizeof magic);
  const size_t page = page_size();
  uintptr_t at = page_of(reinterpret_cast<uintptr_t>(address), page);
  for (const uintptr_t end = at > kFarthest ? at - kFarthest : 0; at > end; at -= page) {
    dl_phdr_info info = {};
    if (compare_word(at, magic) != Word::kEqual || !read_headers(at, &info)) continue;
    for (size_t i = 0; i < info.dlpi_phnum; ++i) {
      const ElfW(Phdr)& p = info.dlpi_phdr[i];
      if (p.p_type == PT_LOAD && p.p_offset == 0) info.dlpi_addr = at - p.p_vaddr;
    }
    if (covers(info, address) && image->read(info)) return true;
  }
  return false;
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
  each_object_info([](const dl_phdr_info& info) {
    if (startup_objects++ == 0) {
      program_headers = info.dlpi_phdr;
      program_header_count = info.dlpi_phnum;
    }
    return true;
  });
}

}  // namespace forksafe
