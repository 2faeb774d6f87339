// SPDX-License-Identifier: Apache-2.0
// The slots of an object's GOT, through which it calls other objects (JUMP_SLOT and GLOB_DAT), and
// the symbols by which others find what it defines.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include "elf/image.h"
#include "elf/loaded_objects.h"
#include "futex.h"

namespace forksafe {

/// What `slot` leads to now, or will at its first call. A lazily bound slot still holds the address
/// of the object's own PLT.
inline void* function_behind(const ElfImage& image, const char* name, void* const* slot) {
  void* bound = *slot;
  if (bound == nullptr || !image.span().contains(bound)) return bound;
  return image.find(name).address == bound ? bound : resolve(image, name);
}

/// Leads slots of `image` elsewhere. `wanted(name)` answers a number for a name, or -1 where its
/// slots stay as they are; `replacement(number, behind)` the function that takes the place of
/// `behind`, or null where the slot stays. RELRO pages are opened for it and closed again; false,
/// with nothing changed, where they can't be.
template <typename Wanted, typename Replacement>
bool redirect_slots(const ElfImage& image, Wanted wanted, Replacement replacement) {
  const auto each = [&](auto visit) {
    image.each_slot([&](const char* name, void** slot) {
      const int number = wanted(name);
      if (number < 0) return;
      void* behind = function_behind(image, name, slot);
      if (behind == nullptr) return;  // a weak reference that nobody answers
      void* function = replacement(number, behind);
      if (function != nullptr) visit(slot, function);
    });
  };

  // The pages of all slots that RELRO has closed. glibc closes whole pages only: the last one
  // stays open where the range ends within it.
  Range closed;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const Range relro = {image.relro().begin & ~(page - 1), image.relro().end & ~(page - 1)};
  each([&](void** slot, void*) {
    const auto address = reinterpret_cast<uintptr_t>(slot);
    if (!relro.contains(address)) return;
    const uintptr_t begin = address & ~(page - 1);
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

/// Has who looks for `symbol` of `image` from now on (dlsym, the dynamic linker) find `function`;
/// who has found it keeps what he has. False, with nothing changed, where the symbol table can't be
/// written to: it may lie between machine code, which is never opened.
inline bool redirect_symbol(const ElfImage& image, const Symbol& symbol, const void* function) {
  const KeepErrno keep;
  auto* value = const_cast<ElfW(Addr)*>(&symbol.entry->st_value);
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  void* const begin = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(value) & ~(page - 1));
  const bool open = image.writable(value);
  if (image.executable(value) || (!open && mprotect(begin, page, PROT_READ | PROT_WRITE) != 0)) {
    return false;
  }
  __atomic_store_n(value, reinterpret_cast<uintptr_t>(function) - image.base(), __ATOMIC_RELEASE);
  if (!open) mprotect(begin, page, PROT_READ);
  return true;
}

}  // namespace forksafe
