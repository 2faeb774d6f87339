// SPDX-License-Identifier: Apache-2.0
#include "elf/image.h"

#include <cstring>

namespace forksafe {
namespace {

#if defined(__x86_64__)
constexpr unsigned kJumpSlot = R_X86_64_JUMP_SLOT, kGlobDat = R_X86_64_GLOB_DAT;
#elif defined(__aarch64__)
constexpr unsigned kJumpSlot = R_AARCH64_JUMP_SLOT, kGlobDat = R_AARCH64_GLOB_DAT;
#elif defined(__powerpc64__)
constexpr unsigned kJumpSlot = R_PPC64_JMP_SLOT, kGlobDat = R_PPC64_GLOB_DAT;
#elif defined(__s390x__)
constexpr unsigned kJumpSlot = R_390_JMP_SLOT, kGlobDat = R_390_GLOB_DAT;
#elif defined(__riscv)
constexpr unsigned kJumpSlot = R_RISCV_JUMP_SLOT, kGlobDat = R_RISCV_64;
#else
#error "forksafe does not know this architecture's relocations"
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
      default: break;
    }
  }
  return dynamic_ != nullptr && table_fits(dynamic_, sizeof *dynamic_) && read_dynamic();
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
  bool plt_is_rela = true;
  relocations_.entry_size = sizeof(ElfW(Rela));

  // glibc relocates these addresses in place, except in the vDSO and on architectures whose
  // dynamic section is read-only.
  const auto at = [this](const ElfW(Dyn) & d) {
    const uintptr_t address = d.d_un.d_ptr;
    return span_.contains(address) ? address : base_ + address;
  };
  const ElfW(Dyn)* d = dynamic_;
  for (; table_fits(d, sizeof *d) && d->d_tag != DT_NULL; ++d) {
    switch (d->d_tag) {
      case DT_SYMTAB: symbols_ = reinterpret_cast<const ElfW(Sym)*>(at(*d)); break;
      case DT_STRTAB: strings_ = reinterpret_cast<const char*>(at(*d)); break;
      case DT_STRSZ: strings_size_ = d->d_un.d_val; break;
      case DT_VERSYM: versions_ = reinterpret_cast<const uint16_t*>(at(*d)); break;
      case DT_GNU_HASH: gnu_hash_ = reinterpret_cast<const uint32_t*>(at(*d)); break;
      case DT_HASH: sysv_hash_ = reinterpret_cast<const uint32_t*>(at(*d)); break;
      case DT_RELA: relocations_.begin = at(*d); break;
      case DT_RELASZ: relocations_bytes = d->d_un.d_val; break;
      case DT_JMPREL: plt_relocations_.begin = at(*d); break;
      case DT_PLTRELSZ: plt_bytes = d->d_un.d_val; break;
      case DT_PLTREL: plt_is_rela = d->d_un.d_val == DT_RELA; break;
      case DT_FLAGS: static_tls_ = (d->d_un.d_val & DF_STATIC_TLS) != 0; break;
      case DT_SONAME: soname_offset = d->d_un.d_val; break;
      default: break;
    }
  }
  if (!table_fits(d, sizeof *d)) return false;  // it does not end
  plt_relocations_.entry_size = plt_is_rela ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
  relocations_.count = relocations_bytes / relocations_.entry_size;
  plt_relocations_.count = plt_bytes / plt_relocations_.entry_size;

  if (symbols_ == nullptr || strings_ == nullptr || strings_size_ == 0 ||
      !table_fits(strings_, strings_size_) || strings_[strings_size_ - 1] != '\0') {
    return false;
  }
  for (const Relocations& table : {relocations_, plt_relocations_}) {
    if (table.count != 0 && !table_fits(reinterpret_cast<const ElfW(Rel)*>(table.begin),
                                        table.count * table.entry_size)) {
      return false;
    }
  }
  symbol_count_ = count_symbols();
  if (!table_fits(symbols_, symbol_count_ * sizeof *symbols_)) return false;
  if (versions_ != nullptr && !table_fits(versions_, symbol_count_ * sizeof *versions_)) {
    return false;
  }
  if (soname_offset != 0 && soname_offset < strings_size_) soname_ = strings_ + soname_offset;
  return true;
}

// The dynamic section does not say how many symbols there are. The hash tables do. 0 if none of
// them can be trusted.
size_t ElfImage::count_symbols() const {
  if (sysv_hash_ != nullptr && table_fits(sysv_hash_, 2 * sizeof(uint32_t))) {
    const size_t buckets = sysv_hash_[0];
    const size_t chains = sysv_hash_[1];
    return table_fits(sysv_hash_, (2 + buckets + chains) * sizeof(uint32_t)) ? chains : 0;
  }
  if (gnu_hash_ == nullptr || !table_fits(gnu_hash_, 4 * sizeof(uint32_t))) return 0;
  const size_t bucket_count = gnu_hash_[0];
  const size_t first = gnu_hash_[1];
  const size_t bloom_words = gnu_hash_[2];
  const auto* bloom = reinterpret_cast<const ElfW(Addr)*>(gnu_hash_ + 4);
  const auto* buckets = reinterpret_cast<const uint32_t*>(bloom + bloom_words);
  if (bucket_count == 0 || bloom_words == 0 || !table_fits(bloom, bloom_words * sizeof *bloom) ||
      !table_fits(buckets, bucket_count * sizeof *buckets)) {
    return 0;
  }
  size_t last = 0;
  for (size_t i = 0; i < bucket_count; ++i) {
    if (buckets[i] > last) last = buckets[i];
  }
  if (last < first) return first;  // it exports nothing
  const uint32_t* chain = buckets + bucket_count + (last - first);
  while (table_fits(chain, sizeof *chain) && (*chain & 1U) == 0) {
    ++chain;
    ++last;
  }
  return table_fits(chain, sizeof *chain) ? last + 1 : 0;
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
  if (gnu_hash_ != nullptr && table_fits(gnu_hash_, 4 * sizeof(uint32_t))) {
    const size_t bucket_count = gnu_hash_[0];
    const size_t first = gnu_hash_[1];
    const size_t bloom_words = gnu_hash_[2];
    const unsigned shift = gnu_hash_[3];
    const auto* bloom = reinterpret_cast<const ElfW(Addr)*>(gnu_hash_ + 4);
    const auto* buckets = reinterpret_cast<const uint32_t*>(bloom + bloom_words);
    if (bucket_count == 0 || bloom_words == 0 || shift >= 32 ||
        !table_fits(bloom, bloom_words * sizeof *bloom) ||
        !table_fits(buckets, bucket_count * sizeof *buckets)) {
      return {};
    }
    constexpr unsigned kBits = 8 * sizeof(ElfW(Addr));
    const uint32_t hash = gnu_hash(name);
    const ElfW(Addr) word = bloom[(hash / kBits) % bloom_words];
    if (((word >> (hash % kBits)) & (word >> ((hash >> shift) % kBits)) & 1U) == 0) return {};
    const uint32_t* chains = buckets + bucket_count;
    for (size_t i = buckets[hash % bucket_count]; i >= first && i < symbol_count_; ++i) {
      const uint32_t* link = chains + (i - first);
      if (!table_fits(link, sizeof *link)) return {};
      if (((*link ^ hash) >> 1) == 0 && matches(symbols_[i], i, name))
        return to_symbol(symbols_[i]);
      if ((*link & 1U) != 0) break;
    }
    return {};
  }
  const size_t bucket_count = sysv_hash_[0];
  const uint32_t* buckets = sysv_hash_ + 2;
  const uint32_t* chains = buckets + bucket_count;
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

bool ElfImage::needs(const ElfImage& other) const {
  bool found = false;
  if (other.soname_ == nullptr) return false;
  each_needed([&](const char* name) { found = found || strcmp(name, other.soname_) == 0; });
  return found;
}

bool ElfImage::slot_at(const Relocations& table, size_t index, const char** name,
                       void*** slot) const {
  // Rela begins with the fields of Rel, and we use no others.
  const auto* r = reinterpret_cast<const ElfW(Rel)*>(table.begin + index * table.entry_size);
#if __SIZEOF_POINTER__ == 8
  const unsigned type = ELF64_R_TYPE(r->r_info);
  const size_t symbol = ELF64_R_SYM(r->r_info);
#else
  const unsigned type = ELF32_R_TYPE(r->r_info);
  const size_t symbol = ELF32_R_SYM(r->r_info);
#endif
  if (type != kJumpSlot && type != kGlobDat) return false;
  if (symbol == 0 || !table_fits(symbols_ + symbol, sizeof *symbols_)) return false;
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
