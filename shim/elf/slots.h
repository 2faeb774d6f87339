// SPDX-License-Identifier: Apache-2.0
// The GOT slots of an object, through which it calls other objects (JUMP_SLOT and GLOB_DAT), and
// the symbols by which other objects find its functions.
#pragma once

#include <sys/mman.h>

#include "elf/image.h"
#include "elf/loaded_objects.h"
#include "futex.h"
#include "pages.h"

namespace forksafe {

/// The function that `slot` leads to now, or will lead to after its first call: before that, a
/// lazily bound slot holds an address in the object's own PLT.
inline void* function_behind(const ElfImage& image, const char* name, void* const* slot) {
  void* bound = *slot;
  if (bound == nullptr || !image.span().contains(bound)) return bound;
  return image.find(name).address == bound ? bound : resolve(image, name);
}

/// The part of RELRO that glibc has closed (elf/dl-reloc.c, _dl_protect_relro): from the page in
/// which it begins, and whole pages only. If it ends within a page, that page stays open.
inline Range closed_part(const Range& relro, size_t page) {
  return {page_of(relro.begin, page), page_of(relro.end, page)};
}

/// Puts functions of ours into slots of `image`. `wanted(name)` returns a number for the name of a
/// slot, or -1 if the slot stays as it is. `replacement(number, behind)` returns the function that
/// takes the place of `behind`, or null if the slot stays as it is. RELRO pages are opened and
/// closed again. If they can't be opened, nothing is changed, and the result is false.
template <typename Wanted, typename Replacement>
bool redirect_slots(const ElfImage& image, Wanted wanted, Replacement replacement,
                    size_t page = page_size()) {
  const auto each = [&](auto visit) {
    image.each_slot([&](const char* name, void** slot) {
      const int number = wanted(name);
      if (number < 0) return;
      void* behind = function_behind(image, name, slot);
      if (behind == nullptr) return;  // a weak reference that no object defines
      void* function = replacement(number, behind);
      if (function != nullptr) visit(slot, function);
    });
  };

  // The pages of all slots that RELRO has closed.
  Range closed;
  const Range relro = closed_part(image.relro(), page);
  each([&](void** slot, void*) {
    if (!relro.contains(slot)) return;
    const uintptr_t begin = page_of(reinterpret_cast<uintptr_t>(slot), page);
    if (closed.end == 0 || begin < closed.begin) closed.begin = begin;
    if (begin + page > closed.end) closed.end = begin + page;
  });
  const KeepErrno keep;
  if (closed.end != 0 && mprotect(reinterpret_cast<void*>(closed.begin), closed.end - closed.begin,
                                  PROT_READ | PROT_WRITE) != 0) {
    return false;
  }
  each([](void** slot, void* function) { __atomic_store_n(slot, function, __ATOMIC_RELEASE); });
  if (closed.end != 0) {
    mprotect(reinterpret_cast<void*>(closed.begin), closed.end - closed.begin, PROT_READ);
  }
  return true;
}

/// From now on, lookups of `symbol` of `image` (by dlsym or the dynamic linker) find `function`.
/// Callers that resolved the symbol earlier keep the old address. If the symbol table can't be
/// written to, nothing is changed, and the result is false: it may lie in a page with machine code,
/// and such a page is never made writable.
inline bool redirect_symbol(const ElfImage& image, const Symbol& symbol, const void* function) {
  const KeepErrno keep;
  auto* entry = const_cast<ElfW(Sym)*>(symbol.entry);
  ElfW(Addr)* const value = &entry->st_value;
  const size_t page = page_size();
  // An entry of 24 bytes may lie in two pages.
  const uintptr_t first = page_of(reinterpret_cast<uintptr_t>(entry), page);
  const uintptr_t last = page_of(reinterpret_cast<uintptr_t>(entry + 1) - 1, page);
  void* const begin = reinterpret_cast<void*>(first);
  const size_t size = last + page - first;
  const bool open = image.writable(value);
  if (image.executable(value) || (!open && mprotect(begin, size, PROT_READ | PROT_WRITE) != 0)) {
    return false;
  }
#if defined(__powerpc64__)
  // The linker lets an object call itself behind the instructions that find the callee's data.
  entry->st_other = static_cast<unsigned char>(entry->st_other & ~STO_PPC64_LOCAL_MASK);
#endif
  __atomic_store_n(value, reinterpret_cast<uintptr_t>(function) - image.base(), __ATOMIC_RELEASE);
  if (!open) mprotect(begin, size, PROT_READ);
  return true;
}

}  // namespace forksafe
