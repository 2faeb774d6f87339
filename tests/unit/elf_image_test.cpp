// SPDX-License-Identifier: Apache-2.0
// Reading loaded objects from memory: sound ones, and copies in which tables are altered. A read
// beyond the copy crashes, because nothing is mapped beside it.
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "elf/image.h"
#include "elf/loaded_objects.h"
#include "elf/slots.h"
#include "support.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

using forksafe::ElfImage;

namespace {

#if defined(__i386__) || defined(__arm__)
using Relocation = ElfW(Rel);
constexpr ElfW(Sxword) kRelocations = DT_REL, kRelocationsSize = DT_RELSZ;
#else
using Relocation = ElfW(Rela);
constexpr ElfW(Sxword) kRelocations = DT_RELA, kRelocationsSize = DT_RELASZ;
#endif

void set_symbol(Relocation* r, uint32_t symbol) {
#if __SIZEOF_POINTER__ == 8
  r->r_info = ELF64_R_INFO(uint64_t{symbol}, ELF64_R_TYPE(r->r_info));
#else
  r->r_info = ELF32_R_INFO(symbol, ELF32_R_TYPE(r->r_info));
#endif
}

// Far from every object.
constexpr uintptr_t kFar = UINTPTR_MAX / 4 + 1;

// Calls `visit(info)` for each loaded object until it returns true.
template <typename Visit>
bool any_object(Visit visit) {
  return dl_iterate_phdr([](dl_phdr_info* info, size_t,
                            void* data) { return (*static_cast<Visit*>(data))(*info) ? 1 : 0; },
                         &visit) != 0;
}

// A fixture, loaded and described as the dynamic linker describes it.
struct Loaded {
  explicit Loaded(const std::string& fixture) : handle(load(fixture_path(fixture))) {
    const void* inside = symbol_in(handle, "fixture_answer");
    any_object([&](const dl_phdr_info& object) {
      info = object;
      ElfImage candidate;
      return candidate.read(object) && candidate.span().contains(inside);
    });
  }
  ElfImage image() const {
    ElfImage result;
    REQUIRE(result.read(info));
    return result;
  }

  void* handle;
  dl_phdr_info info = {};
};

std::vector<std::string> slot_names(const ElfImage& image) {
  std::vector<std::string> names;
  image.each_slot([&](const char* name, void**) { names.emplace_back(name); });
  return names;
}

void** slot_of(const ElfImage& image, const std::string& wanted) {
  void** result = nullptr;
  image.each_slot([&](const char* name, void** slot) {
    if (name == wanted) result = slot;
  });
  return result;
}

// Calls all functions of an image. Returns whether it could be read.
bool read_and_use(const dl_phdr_info& info) {
  ElfImage image;
  if (!image.read(info)) return false;
  volatile size_t sink = 0;
  for (const char* name : {"fixture_answer", "fixture_data", "fixture_versioned", "malloc", ""}) {
    sink = sink + image.find(name).size;
  }
  sink = sink + (image.imports("fixture_nobody_defines_this") ? 1 : 0);
  image.each_slot([&](const char* name, void** slot) {
    // Never more than a pointer within the writable segments.
    if (!image.writable().contains(slot)) throw std::runtime_error("a slot outside");
    sink = sink + strlen(name) + reinterpret_cast<uintptr_t>(*slot);
  });
  image.each_needed([&](const char* name) { sink = sink + strlen(name); });
  if (image.soname() != nullptr) sink = sink + strlen(image.soname());
  image.any_symbol([&](const char* name, const forksafe::Symbol&) {
    sink = sink + strlen(name);
    return false;
  });
  return true;
}

// A copy of a loaded object that may be altered. Pages that can't be touched lie on both sides of
// it, and ASan knows the end within its last page.
class Copy {
 public:
  explicit Copy(const Loaded& original) : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
    const dl_phdr_info& info = original.info;
    const ElfImage image = original.image();
    headers_.assign(info.dlpi_phdr, info.dlpi_phdr + info.dlpi_phnum);
    size_ = image.span().end - image.base();
    const size_t mapped = (size_ + page_ - 1) / page_ * page_;
    guarded_size_ = mapped + 2 * page_;
    guarded_ = static_cast<char*>(
        mmap(nullptr, guarded_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(guarded_ != MAP_FAILED);
    base_ = guarded_ + page_;
    REQUIRE(mprotect(base_, mapped, PROT_READ | PROT_WRITE) == 0);
    for (const ElfW(Phdr) & p : headers_) {
      if (p.p_type == PT_LOAD) {
        memcpy(base_ + p.p_vaddr, reinterpret_cast<const void*>(image.base() + p.p_vaddr),
               p.p_memsz);
      }
    }
    ASAN_POISON_MEMORY_REGION(base_ + size_, mapped - size_);
    // The dynamic linker has made the tables' addresses absolute, but not on every architecture.
    for (ElfW(Dyn)* d = dynamic(); d->d_tag != DT_NULL; ++d) {
      if (!is_address(d->d_tag)) continue;
      if (image.span().contains(d->d_un.d_ptr)) d->d_un.d_ptr -= image.base();
      d->d_un.d_ptr += reinterpret_cast<uintptr_t>(base_);
    }
  }
  ~Copy() {
    ASAN_UNPOISON_MEMORY_REGION(base_, guarded_size_ - 2 * page_);
    munmap(guarded_, guarded_size_);
  }
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;

  dl_phdr_info info() const {
    dl_phdr_info result = {};
    result.dlpi_addr = reinterpret_cast<uintptr_t>(base_);
    result.dlpi_name = "copy";
    result.dlpi_phdr = headers_.data();
    result.dlpi_phnum = static_cast<ElfW(Half)>(headers_.size());
    return result;
  }

  ElfImage image() const {
    ElfImage result;
    REQUIRE(result.read(info()));
    return result;
  }

  char* base() const { return base_; }
  size_t size() const { return size_; }
  size_t page() const { return page_; }
  uintptr_t end() const { return reinterpret_cast<uintptr_t>(base_) + size_; }
  std::vector<ElfW(Phdr)>& headers() { return headers_; }

  ElfW(Phdr) * header(unsigned type) {
    for (auto& p : headers_) {
      if (p.p_type == type) return &p;
    }
    throw std::runtime_error("no such program header");
  }
  ElfW(Dyn) * dynamic() {
    return reinterpret_cast<ElfW(Dyn)*>(base_ + header(PT_DYNAMIC)->p_vaddr);
  }
  ElfW(Dyn) * entry(ElfW(Sxword) tag) {
    for (ElfW(Dyn)* d = dynamic(); d->d_tag != DT_NULL; ++d) {
      if (d->d_tag == tag) return d;
    }
    throw std::runtime_error("no such entry in the dynamic section");
  }
  template <typename T>
  T* table(ElfW(Sxword) tag) {
    return reinterpret_cast<T*>(entry(tag)->d_un.d_ptr);
  }

  static bool is_address(ElfW(Sxword) tag) {
    for (const ElfW(Sxword) known :
         {ElfW(Sxword){DT_SYMTAB}, ElfW(Sxword){DT_STRTAB}, ElfW(Sxword){DT_VERSYM},
          ElfW(Sxword){DT_GNU_HASH}, ElfW(Sxword){DT_HASH}, kRelocations, ElfW(Sxword){DT_JMPREL},
          ElfW(Sxword){DT_PLTGOT}}) {
      if (tag == known) return true;
    }
    return false;
  }

 private:
  const size_t page_;
  size_t size_ = 0;
  size_t guarded_size_ = 0;
  char* guarded_ = nullptr;
  char* base_ = nullptr;
  std::vector<ElfW(Phdr)> headers_;
};

bool finds_answer(const Copy& copy) {
  ElfImage image;
  return image.read(copy.info()) && image.find("fixture_answer").address != nullptr;
}

}  // namespace

TEST_CASE("an object is found with all hash styles and without .symtab", "[elf_image]") {
  const char* fixture = GENERATE("symbols_gnu", "symbols_sysv", "symbols_both", "symbols_stripped");
  CAPTURE(fixture);
  const Loaded loaded(fixture);
  const ElfImage image = loaded.image();

  SECTION("functions and variables stand where dlsym says") {
    for (const char* name : {"fixture_answer", "fixture_other", "fixture_data"}) {
      CHECK(image.find(name).address == symbol_in(loaded.handle, name));
    }
    CHECK(image.find("fixture_data").size == sizeof(int));
    CHECK(reinterpret_cast<int (*)()>(image.find("fixture_answer").address)() == 42);
  }
  SECTION("what it does not define is not found") {
    for (const char* name : {"fixture_nobody_defines_this", "fixture_hidden_function",
                             "fixture_answe", "fixture_answer2", "malloc", ""}) {
      CAPTURE(name);
      CHECK(image.find(name).address == nullptr);
    }
  }
  SECTION("indirect functions and thread-local variables don't count") {
    CHECK(image.find("fixture_indirect").address == nullptr);
    CHECK(image.find("fixture_thread_local").address == nullptr);
  }
  SECTION("of several versions the default one is found, and none where none is the default") {
    REQUIRE(image.find("fixture_versioned").address != nullptr);
    CHECK(reinterpret_cast<int (*)()>(image.find("fixture_versioned").address)() == 2);
    CHECK(image.find("fixture_retired").address == nullptr);
  }
  SECTION("it imports what it refers to") {
    CHECK(image.imports("fixture_nobody_defines_this"));
    CHECK_FALSE(image.imports("fixture_answer2"));
    CHECK_FALSE(image.imports(""));
  }
  SECTION("a text is found among its constants") {
    CHECK(image.holds("fixture-"));  // of its DT_SONAME
    CHECK_FALSE(image.holds("fixture-nobody-has-this"));
  }
  SECTION("a weak reference that nobody answers has a slot with nothing behind it") {
    void** slot = slot_of(image, "fixture_nobody_defines_this");
    REQUIRE(slot != nullptr);
    // On arm64 the slot is bound lazily, and holds an address in the object's PLT.
    CHECK(forksafe::function_behind(image, "fixture_nobody_defines_this", slot) == nullptr);
    CHECK(image.writable().contains(slot));
  }
  SECTION("it knows its name and what it needs") {
    CHECK(std::string(image.path()) == fixture_path(fixture));
    REQUIRE(image.soname() != nullptr);
    CHECK(std::string(image.soname()) == std::string("fixture-") + fixture + ".so.1");
    std::vector<std::string> needed;
    image.each_needed([&](const char* name) { needed.emplace_back(name); });
    CHECK(std::count(needed.begin(), needed.end(), "libc.so.6") == 1);
  }
  SECTION("all its symbols are visited, each with its address") {
    std::set<std::string> names;
    CHECK_FALSE(image.any_symbol([&](const char* name, const forksafe::Symbol& symbol) {
      names.insert(name);
      if (std::string(name) == "fixture_answer") {
        CHECK(symbol.address == symbol_in(loaded.handle, name));
      }
      return false;
    }));
    CHECK(names.count("fixture_answer") == 1);
    CHECK(names.count("fixture_data") == 1);
    CHECK(names.count("fixture_nobody_defines_this") == 0);
    CHECK(names.count("fixture_hidden_function") == 0);
  }
  SECTION("the walk over its symbols ends when the visitor is content") {
    int visits = 0;
    CHECK(image.any_symbol([&](const char*, const forksafe::Symbol&) { return ++visits == 2; }));
    CHECK(visits == 2);
  }
  SECTION("its variables are in the writable part, its functions are not") {
    CHECK(image.writable().contains(symbol_in(loaded.handle, "fixture_data")));
    CHECK_FALSE(image.writable().contains(symbol_in(loaded.handle, "fixture_answer")));
    CHECK(image.span().contains(symbol_in(loaded.handle, "fixture_answer")));
    CHECK_FALSE(image.span().contains(&loaded));
  }
}

TEST_CASE("RELRO is known where the object has it", "[elf_image]") {
  const void* open = symbol_in(load(fixture_path("doors_open")), "doors_lock");
  const void* closed = symbol_in(load(fixture_path("doors_relro")), "doors_lock");
  CHECK(image_at(open).relro().end == 0);
  const ElfImage image = image_at(closed);
  CHECK(image.relro().end > image.relro().begin);
  void** slot = slot_of(image, "pthread_mutex_lock");
  REQUIRE(slot != nullptr);
  CHECK(image.relro().contains(slot));
}

TEST_CASE("the slots hold what the object is bound to", "[elf_image]") {
  const char* fixture = GENERATE("doors_open", "doors_relro");
  CAPTURE(fixture);
  const ElfImage image = image_at(symbol_in(load(fixture_path(fixture)), "doors_lock"));
  for (const char* name : {"pthread_cond_wait", "pthread_cond_signal", "pthread_join"}) {
    CAPTURE(name);
    void** slot = slot_of(image, name);
    REQUIRE(slot != nullptr);
    CHECK(forksafe::find_function(name) == *slot);
    CHECK(image.imports(name));
  }
}

TEST_CASE("a slot that is bound lazily leads into the object itself", "[elf_image]") {
  const ElfImage image = image_at(symbol_in(load(fixture_path("doors_lazy")), "doors_lock"));
  void** slot = slot_of(image, "pthread_cond_destroy");
  REQUIRE(slot != nullptr);
  CHECK(image.span().contains(*slot));
}

TEST_CASE("every loaded object can be read, the vDSO too", "[elf_image]") {
  load(fixture_path("openmp"));
  int objects = 0;
  bool vdso = false;
  any_object([&](const dl_phdr_info& info) {
    CAPTURE(info.dlpi_name);
    ElfImage image;
    CHECK(image.read(info));
    CHECK(read_and_use(info));
    vdso = vdso || image.find("__vdso_clock_gettime").address != nullptr ||
           image.find("__kernel_clock_gettime").address != nullptr;
    ++objects;
    return false;
  });
  CHECK(objects >= 5);
  if (getauxval(AT_SYSINFO_EHDR) != 0) CHECK(vdso);
}

TEST_CASE("an address belongs to the object whose segments hold it", "[elf_image]") {
  void* handle = load(fixture_path("symbols_gnu"));
  ElfImage image;
  REQUIRE(forksafe::find_object(symbol_in(handle, "fixture_data"), &image));
  CHECK(std::string(image.path()) == fixture_path("symbols_gnu"));
  const int on_the_stack = 0;
  CHECK_FALSE(forksafe::find_object(&on_the_stack, &image));
  CHECK_FALSE(forksafe::find_object(nullptr, &image));
}

TEST_CASE("a range holds its first address and not its last", "[elf_image]") {
  const forksafe::Range range = {100, 200};
  CHECK_FALSE(range.contains(uintptr_t{99}));
  CHECK(range.contains(uintptr_t{100}));
  CHECK(range.contains(uintptr_t{199}));
  CHECK_FALSE(range.contains(uintptr_t{200}));
  CHECK_FALSE(range.contains(UINTPTR_MAX));
  CHECK_FALSE(forksafe::Range().contains(uintptr_t{0}));
}

TEST_CASE("a copy in other memory reads as the object does", "[elf_image]") {
  const char* fixture = GENERATE("symbols_gnu", "symbols_sysv", "symbols_both");
  CAPTURE(fixture);
  const Loaded loaded(fixture);
  Copy copy(loaded);
  CHECK(read_and_use(copy.info()));
  const ElfImage image = copy.image();
  const auto offset = static_cast<const char*>(image.find("fixture_answer").address) - copy.base();
  CHECK(static_cast<uintptr_t>(offset) ==
        reinterpret_cast<uintptr_t>(symbol_in(loaded.handle, "fixture_answer")) -
            loaded.info.dlpi_addr);
  CHECK(slot_names(image) == slot_names(loaded.image()));
}

TEST_CASE("tables whose addresses are not relocated are read, as in the vDSO", "[elf_image]") {
  const Loaded loaded("symbols_gnu");
  Copy copy(loaded);
  for (ElfW(Dyn)* d = copy.dynamic(); d->d_tag != DT_NULL; ++d) {
    if (Copy::is_address(d->d_tag)) d->d_un.d_ptr -= reinterpret_cast<uintptr_t>(copy.base());
  }
  CHECK(finds_answer(copy));
  CHECK(read_and_use(copy.info()));
}

TEST_CASE("an image with wrong program headers is refused", "[elf_image]") {
  const Loaded loaded("symbols_gnu");
  Copy copy(loaded);

  SECTION("there are none") {
    copy.headers().clear();
    CHECK_FALSE(read_and_use(copy.info()));
  }
  SECTION("there is no dynamic section") {
    copy.header(PT_DYNAMIC)->p_type = PT_NULL;
    CHECK_FALSE(read_and_use(copy.info()));
  }
  SECTION("there are no segments") {
    for (auto& p : copy.headers()) {
      if (p.p_type == PT_LOAD) p.p_type = PT_NULL;
    }
    CHECK_FALSE(read_and_use(copy.info()));
  }
  SECTION("the dynamic section is outside") {
    for (const uintptr_t vaddr : {copy.size(), copy.size() - sizeof(ElfW(Dyn)) + 8,
                                  copy.size() + kFar, uintptr_t{0} - 4096}) {
      CAPTURE(vaddr);
      copy.header(PT_DYNAMIC)->p_vaddr = vaddr;
      CHECK_FALSE(read_and_use(copy.info()));
    }
  }
  SECTION("a segment ends beyond the last address") {
    copy.header(PT_LOAD)->p_memsz = UINTPTR_MAX;
    CHECK_FALSE(read_and_use(copy.info()));
  }
}

TEST_CASE("an image whose dynamic section has no end is refused", "[elf_image]") {
  const Loaded loaded("symbols_gnu");
  Copy copy(loaded);
  // Replace the end mark of the section, and everything up to the end of the object that looks like
  // one.
  auto* d = copy.dynamic();
  while (reinterpret_cast<uintptr_t>(d) + sizeof *d <= copy.end()) {
    if (d->d_tag == DT_NULL) d->d_tag = DT_DEBUG;
    ++d;
  }
  CHECK_FALSE(read_and_use(copy.info()));
}

TEST_CASE("an image whose tables are outside of it is refused or has nothing to find",
          "[elf_image]") {
  const char* fixture = GENERATE("symbols_gnu", "symbols_sysv", "symbols_both");
  CAPTURE(fixture);
  const Loaded loaded(fixture);
  Copy copy(loaded);
  const uintptr_t outside[] = {
      copy.end(),        copy.end() - 8, copy.end() - 1, copy.end() + 2 * copy.page(),
      uintptr_t{0} - 64, kFar,           copy.size()};

  SECTION("the names") {
    for (const uintptr_t address : outside) {
      copy.entry(DT_STRTAB)->d_un.d_ptr = address;
      CHECK_FALSE(read_and_use(copy.info()));
    }
  }
  SECTION("more names than the object has bytes") {
    for (const size_t size : {copy.size() + 1, size_t{kFar}, SIZE_MAX}) {
      copy.entry(DT_STRSZ)->d_un.d_val = size;
      CHECK_FALSE(read_and_use(copy.info()));
    }
  }
  SECTION("no names") {
    copy.entry(DT_STRSZ)->d_un.d_val = 0;
    CHECK_FALSE(read_and_use(copy.info()));
  }
  SECTION("the last name has no end") {
    copy.table<char>(DT_STRTAB)[copy.entry(DT_STRSZ)->d_un.d_val - 1] = 'x';
    CHECK_FALSE(read_and_use(copy.info()));
  }
  SECTION("no table of names or symbols at all") {
    const auto tag = GENERATE(DT_STRTAB, DT_SYMTAB);
    copy.entry(tag)->d_tag = DT_DEBUG;
    CHECK_FALSE(read_and_use(copy.info()));
  }
  SECTION("the symbols") {
    for (const uintptr_t address : outside) {
      copy.entry(DT_SYMTAB)->d_un.d_ptr = address;
      CHECK_FALSE(read_and_use(copy.info()));
    }
  }
  SECTION("the versions") {
    for (const uintptr_t address : outside) {
      if (address == copy.end() - 8) continue;  // four versions would fit, but not all
      copy.entry(DT_VERSYM)->d_un.d_ptr = address;
      CHECK_FALSE(read_and_use(copy.info()));
    }
    copy.entry(DT_VERSYM)->d_un.d_ptr = copy.end() - 8;
    CHECK_FALSE(read_and_use(copy.info()));
  }
  SECTION("the relocations") {
    for (const auto tag : {kRelocations, ElfW(Sxword){DT_JMPREL}}) {
      const uintptr_t sound = copy.entry(tag)->d_un.d_ptr;
      for (const uintptr_t address : outside) {
        if (address == copy.end() - 8 && sizeof(Relocation) == 8) continue;  // one would fit
        copy.entry(tag)->d_un.d_ptr = address;
        CHECK_FALSE(read_and_use(copy.info()));
      }
      copy.entry(tag)->d_un.d_ptr = sound;
    }
  }
  SECTION("more relocations than the object has bytes") {
    for (const auto tag : {kRelocationsSize, ElfW(Sxword){DT_PLTRELSZ}}) {
      const size_t sound = copy.entry(tag)->d_un.d_val;
      for (const size_t size : {copy.size() + 24, size_t{kFar}, SIZE_MAX}) {
        copy.entry(tag)->d_un.d_val = size;
        CHECK_FALSE(read_and_use(copy.info()));
      }
      copy.entry(tag)->d_un.d_val = sound;
    }
  }
  SECTION("the hash tables: nothing is found") {
    for (ElfW(Dyn)* d = copy.dynamic(); d->d_tag != DT_NULL; ++d) {
      if (d->d_tag != DT_HASH && d->d_tag != DT_GNU_HASH) continue;
      d->d_un.d_ptr = copy.end() - 4;
    }
    read_and_use(copy.info());
    CHECK_FALSE(finds_answer(copy));
  }
  SECTION("no hash table: nothing is found") {
    for (ElfW(Dyn)* d = copy.dynamic(); d->d_tag != DT_NULL; ++d) {
      if (d->d_tag == DT_HASH || d->d_tag == DT_GNU_HASH) d->d_tag = DT_DEBUG;
    }
    CHECK(read_and_use(copy.info()));
    CHECK_FALSE(finds_answer(copy));
  }
}

TEST_CASE("absurd counts in a GNU hash table find nothing", "[elf_image]") {
  const char* fixture = GENERATE("symbols_gnu", "symbols_both");
  CAPTURE(fixture);
  const Loaded loaded(fixture);
  Copy copy(loaded);
  auto* table = copy.table<uint32_t>(DT_GNU_HASH);

  SECTION("buckets") {
    for (const uint32_t count : {0U, 0x10000000U, UINT32_MAX}) {
      table[0] = count;
      read_and_use(copy.info());
      CHECK_FALSE(finds_answer(copy));
    }
  }
  SECTION("the first symbol") {
    table[1] = UINT32_MAX;
    read_and_use(copy.info());
    CHECK_FALSE(finds_answer(copy));
  }
  SECTION("words of the filter") {
    for (const uint32_t count : {0U, 0x10000000U, UINT32_MAX}) {
      table[2] = count;
      read_and_use(copy.info());
      CHECK_FALSE(finds_answer(copy));
    }
  }
  SECTION("the filter's shift") {
    for (const uint32_t shift : {32U, 64U, UINT32_MAX}) {
      table[3] = shift;
      read_and_use(copy.info());  // x86 takes the shift modulo 32: it may find something
    }
  }
  SECTION("the buckets lead nowhere") {
    auto* buckets = table + 4 + table[2] * sizeof(ElfW(Addr)) / sizeof(uint32_t);
    for (uint32_t i = 0; i < table[0]; ++i) buckets[i] = UINT32_MAX - i;
    read_and_use(copy.info());
    CHECK_FALSE(finds_answer(copy));
  }
  SECTION("the chains have no end") {
    auto* p = table + 4 + table[2] * sizeof(ElfW(Addr)) / sizeof(uint32_t) + table[0];
    for (; reinterpret_cast<uintptr_t>(p) + sizeof *p <=
           reinterpret_cast<uintptr_t>(copy.table<char>(DT_SYMTAB));
         ++p) {
      *p &= ~1U;
    }
    read_and_use(copy.info());
  }
}

TEST_CASE("absurd counts in a System V hash table find nothing", "[elf_image]") {
  const Loaded loaded("symbols_sysv");
  Copy copy(loaded);
  auto* table = copy.table<Elf_Symndx>(DT_HASH);
  const Elf_Symndx buckets = table[0], chains = table[1];

  SECTION("buckets") {
    for (const uint32_t count : {0U, 0x10000000U, UINT32_MAX}) {
      table[0] = count;
      read_and_use(copy.info());
      CHECK_FALSE(finds_answer(copy));
    }
  }
  SECTION("chains") {
    for (const uint32_t count : {0U, 0x10000000U, UINT32_MAX}) {
      table[1] = count;
      read_and_use(copy.info());
      CHECK_FALSE(finds_answer(copy));
    }
  }
  SECTION("the buckets lead nowhere") {
    for (Elf_Symndx i = 0; i < buckets; ++i) table[2 + i] = UINT32_MAX - i;
    read_and_use(copy.info());
    CHECK_FALSE(finds_answer(copy));
  }
  SECTION("the chains go round in circles") {
    for (Elf_Symndx i = 0; i < chains; ++i) table[2 + buckets + i] = i == 0 ? 0 : i;
    read_and_use(copy.info());  // ends
  }
}

TEST_CASE("wrong relocations give no slot outside of the writable part", "[elf_image]") {
  const Loaded loaded("symbols_gnu");
  Copy copy(loaded);
  const ElfImage sound = copy.image();
  const size_t count = copy.entry(kRelocationsSize)->d_un.d_val / sizeof(Relocation);
  auto* relocations = copy.table<Relocation>(kRelocations);
  const auto writable_end = sound.writable().end - sound.base();

  SECTION("where they point") {
    for (const uintptr_t offset :
         {uintptr_t{0}, copy.size(), writable_end, writable_end - 4, kFar, UINTPTR_MAX - 3}) {
      for (size_t i = 0; i < count; ++i) relocations[i].r_offset = offset;
      CHECK(read_and_use(copy.info()));  // throws when a slot is outside
    }
  }
  SECTION("which symbol they are for") {
    for (const uint32_t symbol : {0U, 100000U, UINT32_MAX}) {
      for (size_t i = 0; i < count; ++i) set_symbol(&relocations[i], symbol);
      CHECK(read_and_use(copy.info()));
    }
  }
  SECTION("the symbols' names") {
    auto* symbols = copy.table<ElfW(Sym)>(DT_SYMTAB);
    for (int i = 1; i < 8; ++i) symbols[i].st_name = UINT32_MAX;
    CHECK(read_and_use(copy.info()));
  }
}

TEST_CASE("symbols of sections, which some linkers leave in, are not visited", "[elf_image]") {
  const Loaded loaded("symbols_gnu");
  Copy copy(loaded);
  const auto visited = [&] {
    std::set<std::string> names;
    copy.image().any_symbol([&](const char* name, const forksafe::Symbol&) {
      names.insert(name);
      return false;
    });
    return names;
  };
  std::set<std::string> expected = visited();
  REQUIRE(expected.erase("fixture_answer") == 1);
  const ElfImage image = copy.image();
  auto* symbol = const_cast<ElfW(Sym)*>(image.find("fixture_answer").entry);
  symbol->st_info = ELF64_ST_INFO(STB_LOCAL, STT_SECTION);
  symbol->st_name = 0;
  CHECK(visited() == expected);
}

TEST_CASE("storage at a fixed distance is known by a flag or by its relocations", "[elf_image]") {
  const Loaded loaded("symbols_gnu");
  Copy copy(loaded);
  const auto is_static = [&] { return copy.image().static_tls(); };
  CHECK(is_static());
  for (ElfW(Dyn)* d = copy.dynamic(); d->d_tag != DT_NULL; ++d) {
    if (d->d_tag == DT_FLAGS) d->d_un.d_val &= ~ElfW(Addr){DF_STATIC_TLS};
  }
  CHECK(is_static());
  const size_t count = copy.entry(kRelocationsSize)->d_un.d_val / sizeof(Relocation);
  auto* relocations = copy.table<Relocation>(kRelocations);
  for (size_t i = 0; i < count; ++i) set_symbol(&relocations[i], 1);
  CHECK_FALSE(is_static());
}

TEST_CASE("a slot in both of the overlapping tables of relocations is one slot", "[elf_image]") {
  const Loaded loaded("symbols_gnu");
  Copy copy(loaded);
  const auto names = [&] { return slot_names(copy.image()); };
  auto& begin = copy.entry(kRelocations)->d_un.d_ptr;
  auto& size = copy.entry(kRelocationsSize)->d_un.d_val;
  const auto plt = copy.entry(DT_JMPREL)->d_un.d_ptr;
  const auto plt_size = copy.entry(DT_PLTRELSZ)->d_un.d_val;
  // As binutils writes them for RISC-V: the second table is the end of the first one.
  size = plt + plt_size - begin;
  const std::vector<std::string> overlapping = names();
  size = plt - begin;
  CHECK(overlapping == names());
  CHECK_FALSE(overlapping.empty());
}

#if !defined(__i386__) && !defined(__arm__)
TEST_CASE("a word that holds more than the address of a symbol is no slot", "[elf_image]") {
  const Loaded loaded("symbols_gnu");
  Copy copy(loaded);
  const auto imports = [&] { return copy.image().imports("fixture_nobody_defines_this"); };
  CHECK(imports());
  const auto add_to_each = [&](auto table, auto size) {
    const size_t count = copy.entry(size)->d_un.d_val / sizeof(Relocation);
    auto* relocations = copy.table<Relocation>(table);
    for (size_t i = 0; i < count; ++i) relocations[i].r_addend = 8;
  };
  add_to_each(kRelocations, kRelocationsSize);
  add_to_each(DT_JMPREL, DT_PLTRELSZ);
  CHECK_FALSE(imports());
}
#endif

TEST_CASE("a table in a hole between two segments is refused", "[elf_image]") {
  // The dynamic linker maps nothing that can be read there.
  const Loaded loaded("symbols_gnu");
  Copy copy(loaded);
  ElfW(Phdr) far = *copy.header(PT_LOAD);
  far.p_vaddr = (copy.size() + copy.page() - 1) / copy.page() * copy.page() + 16 * copy.page();
  far.p_memsz = copy.page();
  copy.headers().push_back(far);
  REQUIRE(finds_answer(copy));
  // The copy's guard page: part of the hole.
  const uintptr_t hole = reinterpret_cast<uintptr_t>(copy.base()) + far.p_vaddr - 16 * copy.page();
  const dl_phdr_info info = copy.info();
  for (const ElfW(Sxword) tag :
       {ElfW(Sxword){DT_STRTAB}, ElfW(Sxword){DT_SYMTAB}, ElfW(Sxword){DT_GNU_HASH},
        ElfW(Sxword){DT_VERSYM}, kRelocations}) {
    CAPTURE(tag);
    const uintptr_t sound = copy.entry(tag)->d_un.d_ptr;
    copy.entry(tag)->d_un.d_ptr = hole;
    // In a child, so that a crash is one failed assertion.
    CHECK(run_in_child([&]() -> std::string {
            read_and_use(info);
            return "";
          }) == "");
    copy.entry(tag)->d_un.d_ptr = sound;
  }
}

TEST_CASE("no altered bytes make the reader leave the object", "[elf_image]") {
  const char* fixture = GENERATE("symbols_gnu", "symbols_sysv", "symbols_both");
  CAPTURE(fixture);
  const Loaded loaded(fixture);
  Copy copy(loaded);
  struct Part {
    char* begin;
    size_t size;
  };
  std::vector<Part> parts;
  for (ElfW(Dyn)* d = copy.dynamic(); d->d_tag != DT_NULL; ++d) {
    if (!Copy::is_address(d->d_tag)) continue;
    auto* begin = reinterpret_cast<char*>(d->d_un.d_ptr);
    parts.push_back({begin, std::min<size_t>(512, copy.base() + copy.size() - begin)});
  }
  parts.push_back({reinterpret_cast<char*>(copy.dynamic()), copy.header(PT_DYNAMIC)->p_memsz});
  const Part headers = {reinterpret_cast<char*>(copy.headers().data()),
                        copy.headers().size() * sizeof(ElfW(Phdr))};

  std::mt19937 random(2);
  int still_read = 0;
  for (int round = 0; round < 8000; ++round) {
    // The program headers are what the object was mapped by. One lie there is borne; two could
    // agree on memory that was never mapped.
    const bool in_headers = round % 8 == 0;
    const bool in_dynamic = round % 2 == 0;
    const Part& part = in_headers   ? headers
                       : in_dynamic ? parts.back()
                                    : parts[random() % parts.size()];
    std::vector<std::pair<char*, char>> changes;
    for (size_t flips = in_headers ? 1 : 1 + random() % 4; flips > 0; --flips) {
      char* at = part.begin + random() % part.size;
      changes.emplace_back(at, *at);
      *at = static_cast<char>(random() % 4 == 0 ? 0xff : random());
    }
    still_read += read_and_use(copy.info()) ? 1 : 0;
    for (auto change = changes.rbegin(); change != changes.rend(); ++change) {
      *change->first = change->second;
    }
  }
  CHECK(still_read > 0);
  CHECK(still_read < 8000);
  CHECK(finds_answer(copy));
}
