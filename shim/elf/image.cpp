// SPDX-License-Identifier: Apache-2.0
#include "elf/image.h"

#include <cstring>

namespace forksafe {
namespace {

// The relocations of slots, on every architecture that is built and tried, and on no other.
#if defined(__x86_64__) && defined(__LP64__)
constexpr unsigned kSlots[] = {R_X86_64_JUMP_SLOT, R_X86_64_GLOB_DAT};
constexpr unsigned kInitialExec = R_X86_64_TPOFF64;
#elif defined(__i386__)
constexpr unsigned kSlots[] = {R_386_JMP_SLOT, R_386_GLOB_DAT};
constexpr unsigned kInitialExec = R_386_TLS_TPOFF;
#elif defined(__aarch64__) && defined(__LP64__)
constexpr unsigned kSlots[] = {R_AARCH64_JUMP_SLOT, R_AARCH64_GLOB_DAT};
constexpr unsigned kInitialExec = R_AARCH64_TLS_TPREL;
#elif defined(__arm__) && defined(__ARM_EABI__)
constexpr unsigned kSlots[] = {R_ARM_JUMP_SLOT, R_ARM_GLOB_DAT};
constexpr unsigned kInitialExec = R_ARM_TLS_TPOFF32;
#elif defined(__powerpc64__) && _CALL_ELF == 2
// In ELFv1 a slot holds a descriptor. GCC's code has addresses in words of its own (.toc).
constexpr unsigned kSlots[] = {R_PPC64_JMP_SLOT, R_PPC64_GLOB_DAT, R_PPC64_ADDR64};
constexpr unsigned kInitialExec = R_PPC64_TPREL64;
#elif defined(__s390x__)
constexpr unsigned kSlots[] = {R_390_JMP_SLOT, R_390_GLOB_DAT};
constexpr unsigned kInitialExec = R_390_TLS_TPOFF;
#elif defined(__riscv) && __riscv_xlen == 64
constexpr unsigned kSlots[] = {R_RISCV_JUMP_SLOT, R_RISCV_64};  // there is no GLOB_DAT
constexpr unsigned kInitialExec = R_RISCV_TLS_TPREL64;
#else
#error "forksafe does not know this architecture's relocations"
#endif

// The addends of an architecture's relocations stand either beside all of them or in the words that
// they are for. DT_JMPREL says which of the two it has.
#if defined(__i386__) || defined(__arm__)
using Relocation = ElfW(Rel);
constexpr auto kRelocations = DT_REL, kRelocationsSize = DT_RELSZ;
#else
using Relocation = ElfW(Rela);
constexpr auto kRelocations = DT_RELA, kRelocationsSize = DT_RELASZ;
#endif

#if __SIZEOF_POINTER__ == 8
unsigned type_of(uint64_t info) { return ELF64_R_TYPE(info); }
size_t symbol_of(uint64_t info) { return ELF64_R_SYM(info); }
#else
unsigned type_of(uint32_t info) { return ELF32_R_TYPE(info); }
size_t symbol_of(uint32_t info) { return ELF32_R_SYM(info); }
#endif

// An entry of .gnu.version is the version's index, and this bit: "not the default version".
constexpr uint16_t kHiddenVersion = 0x8000;

uint32_t gnu_hash(const char* name) {
  uint32_t h = 5381;
  for (; *name != '\0'; ++name) {
    h = h * 33 + static_cast<unsigned char>(*name);
  }
  return h;
}

uint32_t sysv_hash(const char* name) {
  uint32_t h = 0;
  for (; *name != '\0'; ++name) {
    h = (h << 4) + static_cast<unsigned char>(*name);
    h = (h ^ ((h & 0xf0000000U) >> 24)) & 0x0fffffffU;
  }
  return h;
}

void extend(Range* range, uintptr_t begin, uintptr_t end) {
  if (range->end == 0) {
    *range = {begin, end};
    return;
  }
  if (begin < range->begin) range->begin = begin;
  if (end > range->end) range->end = end;
}

}  // namespace

bool ElfImage::read(const dl_phdr_info& info) {
  *this = ElfImage();
  path_ = info.dlpi_name;
  base_ = info.dlpi_addr;
  headers_ = info.dlpi_phdr;
  header_count_ = info.dlpi_phnum;
  for (size_t i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& p = info.dlpi_phdr[i];
    const uintptr_t begin = base_ + p.p_vaddr;
    const uintptr_t end = begin + p.p_memsz;
    if (end < begin) return false;
    switch (p.p_type) {
      case PT_LOAD:
        extend(&span_, begin, end);
        if ((p.p_flags & PF_W) != 0) extend(&writable_, begin, end);
        break;
      case PT_DYNAMIC: dynamic_ = reinterpret_cast<const ElfW(Dyn)*>(begin); break;
      case PT_GNU_RELRO: relro_ = {begin, end}; break;
      case PT_TLS: tls_ = &p; break;
      default: break;
    }
  }
  return dynamic_ != nullptr && table_fits(dynamic_, 1) && read_dynamic();
}

// All bytes must lie in one segment: there may be a hole between two segments.
bool ElfImage::fits(const void* begin, size_t bytes, unsigned flags) const {
  const auto address = reinterpret_cast<uintptr_t>(begin);
  for (size_t i = 0; i < header_count_; ++i) {
    const ElfW(Phdr)& p = headers_[i];
    if (p.p_type != PT_LOAD || (p.p_flags & flags) != flags) continue;
    const Range segment = {base_ + p.p_vaddr, base_ + p.p_vaddr + p.p_memsz};
    if (segment.contains(address) && bytes <= segment.end - address) return true;
  }
  return false;
}

bool ElfImage::read_dynamic() {
  size_t relocations_bytes = 0;
  size_t plt_bytes = 0;
  size_t soname_offset = 0;
  bool plt_is_rela = kRelocations == DT_RELA;
  relocations_.entry_size = sizeof(Relocation);

  // glibc relocates these addresses in place, except in the vDSO and on architectures whose
  // dynamic section is read-only.
  const auto at = [this](const ElfW(Dyn) & d) {
    const uintptr_t address = d.d_un.d_ptr;
    return span_.contains(address) ? address : base_ + address;
  };
  const ElfW(Dyn)* d = dynamic_;
  for (; table_fits(d, 1) && d->d_tag != DT_NULL; ++d) {
    switch (d->d_tag) {
      case DT_SYMTAB: symbols_ = reinterpret_cast<const ElfW(Sym)*>(at(*d)); break;
      case DT_STRTAB: strings_ = reinterpret_cast<const char*>(at(*d)); break;
      case DT_STRSZ: strings_size_ = d->d_un.d_val; break;
      case DT_VERSYM: versions_ = reinterpret_cast<const uint16_t*>(at(*d)); break;
      case DT_GNU_HASH: gnu_hash_ = reinterpret_cast<const uint32_t*>(at(*d)); break;
      case DT_HASH: sysv_hash_ = reinterpret_cast<const Elf_Symndx*>(at(*d)); break;
      case kRelocations: relocations_.begin = at(*d); break;
      case kRelocationsSize: relocations_bytes = d->d_un.d_val; break;
      case DT_JMPREL: plt_relocations_.begin = at(*d); break;
      case DT_PLTRELSZ: plt_bytes = d->d_un.d_val; break;
      case DT_PLTREL: plt_is_rela = d->d_un.d_val == DT_RELA; break;
      case DT_FLAGS: static_tls_ = (d->d_un.d_val & DF_STATIC_TLS) != 0; break;
      case DT_SONAME: soname_offset = d->d_un.d_val; break;
      default: break;
    }
  }
  if (!table_fits(d, 1)) return false;  // it does not end
  plt_relocations_.entry_size = plt_is_rela ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
  // The second table may be the end of the first one (RISC-V, binutils 2.44).
  if (plt_bytes <= relocations_bytes &&
      relocations_.begin + relocations_bytes == plt_relocations_.begin + plt_bytes) {
    relocations_bytes -= plt_bytes;
  }
  relocations_.count = relocations_bytes / relocations_.entry_size;
  plt_relocations_.count = plt_bytes / plt_relocations_.entry_size;

  if (symbols_ == nullptr || strings_ == nullptr || strings_size_ == 0 ||
      !table_fits(strings_, strings_size_) || strings_[strings_size_ - 1] != '\0') {
    return false;
  }
  for (const Relocations& table : {relocations_, plt_relocations_}) {
    const void* begin = reinterpret_cast<const void*>(table.begin);
    if (table.count != 0 && (table.begin % alignof(ElfW(Rel)) != 0 ||
                             !fits(begin, table.count * table.entry_size, PF_R))) {
      return false;
    }
  }
  symbol_count_ = count_symbols();
  if (!table_fits(symbols_, symbol_count_)) return false;
  if (versions_ != nullptr && !table_fits(versions_, symbol_count_)) return false;
  if (soname_offset != 0 && soname_offset < strings_size_) soname_ = strings_ + soname_offset;
  return true;
}

// The dynamic section does not say how many symbols there are. The hash tables do. 0 if none of
// them can be trusted.
size_t ElfImage::count_symbols() const {
  if (sysv_hash_ != nullptr && table_fits(sysv_hash_, 2)) {
    const size_t buckets = sysv_hash_[0];
    const size_t chains = sysv_hash_[1];
    const size_t most = (span_.end - span_.begin) / sizeof *sysv_hash_;
    if (buckets > most || chains > most) return 0;  // their sum could overflow
    return table_fits(sysv_hash_, 2 + buckets + chains) ? chains : 0;
  }
  if (gnu_hash_ == nullptr || !table_fits(gnu_hash_, 4)) return 0;
  const size_t bucket_count = gnu_hash_[0];
  const size_t first = gnu_hash_[1];
  const size_t bloom_words = gnu_hash_[2];
  const auto* bloom = reinterpret_cast<const ElfW(Addr)*>(gnu_hash_ + 4);
  const auto* buckets = reinterpret_cast<const uint32_t*>(bloom + bloom_words);
  if (bucket_count == 0 || bloom_words == 0 || !table_fits(bloom, bloom_words) ||
      !table_fits(buckets, bucket_count)) {
    return 0;
  }
  size_t last = 0;
  for (size_t i = 0; i < bucket_count; ++i) {
    if (buckets[i] > last) last = buckets[i];
  }
  if (last < first) return first;  // it exports nothing
  const uint32_t* chain = buckets + bucket_count + (last - first);
  while (table_fits(chain, 1) && (*chain & 1U) == 0) {
    ++chain;
    ++last;
  }
  return table_fits(chain, 1) ? last + 1 : 0;
}

bool ElfImage::matches(const ElfW(Sym) & symbol, size_t index, const char* name) const {
  const unsigned type = ELF64_ST_TYPE(symbol.st_info);
  return symbol.st_shndx != SHN_UNDEF && symbol.st_value != 0 && type != STT_GNU_IFUNC &&
         type != STT_TLS && symbol.st_name < strings_size_ &&
         (versions_ == nullptr || (versions_[index] & kHiddenVersion) == 0) &&
         strcmp(strings_ + symbol.st_name, name) == 0;
}

Symbol ElfImage::find(const char* name) const {
  if (symbol_count_ == 0) return {};
  if (gnu_hash_ != nullptr && table_fits(gnu_hash_, 4)) {
    const size_t bucket_count = gnu_hash_[0];
    const size_t first = gnu_hash_[1];
    const size_t bloom_words = gnu_hash_[2];
    const unsigned shift = gnu_hash_[3];
    const auto* bloom = reinterpret_cast<const ElfW(Addr)*>(gnu_hash_ + 4);
    const auto* buckets = reinterpret_cast<const uint32_t*>(bloom + bloom_words);
    if (bucket_count == 0 || bloom_words == 0 || shift >= 32 || !table_fits(bloom, bloom_words) ||
        !table_fits(buckets, bucket_count)) {
      return {};
    }
    constexpr unsigned kBits = 8 * sizeof(ElfW(Addr));
    const uint32_t hash = gnu_hash(name);
    const ElfW(Addr) word = bloom[(hash / kBits) % bloom_words];
    if (((word >> (hash % kBits)) & (word >> ((hash >> shift) % kBits)) & 1U) == 0) return {};
    const uint32_t* chains = buckets + bucket_count;
    for (size_t i = buckets[hash % bucket_count]; i >= first && i < symbol_count_; ++i) {
      const uint32_t* link = chains + (i - first);
      if (!table_fits(link, 1)) return {};
      if (((*link ^ hash) >> 1) == 0 && matches(symbols_[i], i, name))
        return to_symbol(symbols_[i]);
      if ((*link & 1U) != 0) break;
    }
    return {};
  }
  const size_t bucket_count = sysv_hash_[0];
  const Elf_Symndx* buckets = sysv_hash_ + 2;
  const Elf_Symndx* chains = buckets + bucket_count;
  if (bucket_count == 0) return {};
  size_t steps = 0;
  for (size_t i = buckets[sysv_hash(name) % bucket_count];
       i != 0 && i < symbol_count_ && steps < symbol_count_; i = chains[i], ++steps) {
    if (matches(symbols_[i], i, name)) return to_symbol(symbols_[i]);
  }
  return {};
}

bool ElfImage::imports(const char* name) const {
  bool found = false;
  each_slot([&](const char* slot_name, void**) { found = found || strcmp(slot_name, name) == 0; });
  return found;
}

bool ElfImage::holds(const char* text) const {
  for (size_t i = 0; i < header_count_; ++i) {
    const ElfW(Phdr)& p = headers_[i];
    if (p.p_type == PT_LOAD && (p.p_flags & (PF_R | PF_W)) == PF_R &&
        memmem(reinterpret_cast<const void*>(base_ + p.p_vaddr), p.p_memsz, text, strlen(text)) !=
            nullptr) {
      return true;
    }
  }
  return false;
}

bool ElfImage::needs(const ElfImage& other) const {
  bool found = false;
  if (other.soname_ == nullptr) return false;
  each_needed([&](const char* name) { found = found || strcmp(name, other.soname_) == 0; });
  return found;
}

// binutils (2.40) sets DF_STATIC_TLS on all of these architectures but arm64. A relocation by which
// code finds its own storage (it names no symbol) at a fixed distance means the same.
bool ElfImage::static_tls() const {
  bool found = static_tls_;
  for (size_t i = 0; i < relocations_.count && !found; ++i) {
    const auto* r = reinterpret_cast<const Relocation*>(relocations_.begin) + i;
    found = type_of(r->r_info) == kInitialExec && symbol_of(r->r_info) == 0;
  }
  return found;
}

bool ElfImage::slot_at(const Relocations& table, size_t index, const char** name,
                       void*** slot) const {
  // Rela begins with the fields of Rel.
  const auto* r = reinterpret_cast<const ElfW(Rela)*>(table.begin + index * table.entry_size);
  const size_t symbol = symbol_of(r->r_info);
  const unsigned type = type_of(r->r_info);
  bool is_slot = false;
  for (const unsigned known : kSlots) is_slot = is_slot || type == known;
  // With an addend it is not the symbol's address: some of these types are for any word of data.
  if (!is_slot || (table.entry_size == sizeof *r && r->r_addend != 0)) return false;
  if (symbol == 0 || !table_fits(symbols_ + symbol, 1)) return false;
  const uintptr_t address = base_ + r->r_offset;
  if (address % alignof(void*) != 0 ||
      !fits(reinterpret_cast<void*>(address), sizeof(void*), PF_R | PF_W)) {
    return false;
  }
  const size_t offset = symbols_[symbol].st_name;
  if (offset >= strings_size_) return false;
  *name = strings_ + offset;
  *slot = reinterpret_cast<void**>(address);
  return true;
}

}  // namespace forksafe
