// SPDX-License-Identifier: Apache-2.0
#include "process/core.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <linux/futex.h>
#include <sys/reg.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace forksafe::cli {
namespace {

// More than a process can have: the notes of a thread take 3 to 12 kB, and a process has at most
// 65530 mappings unless vm.max_map_count was raised.
constexpr size_t kMostNotes = size_t{64} << 20;
constexpr size_t kMostThreads = 16384;
constexpr size_t kMostMappings = 131072;

bool read_at(int file, void* buffer, size_t size, uint64_t offset) {
  if (offset > static_cast<uint64_t>(INT64_MAX)) return false;
  return pread(file, buffer, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
}

// Reads a structure or an array from the beginning of a text. False if the text is too short.
template <typename T>
bool copy(const std::string& from, size_t offset, T* to, size_t count = 1) {
  if (offset > from.size() || count > (from.size() - offset) / sizeof(T)) return false;
  if (count == 0) return true;  // then `to` may be null, which memcpy does not take
  memcpy(to, from.data() + offset, count * sizeof(T));
  return true;
}

bool starts_like_archive(const char* bytes) {
  for (const char* magic : {"\x28\xb5\x2f\xfd", "\x04\x22\x4d\x18",
                            "\xfd"
                            "7zX",
                            "\x1f\x8b"}) {
    if (memcmp(bytes, magic, strlen(magic)) == 0) return true;
  }
  return false;
}

}  // namespace

Core::Core(const std::string& path) : path_(path) {
  struct stat info = {};
  // A device or a pipe must not even be opened.
  if (stat(path.c_str(), &info) != 0) refuse(strerror(errno));
  if (!S_ISREG(info.st_mode)) refuse("it is not a regular file");
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_ < 0) refuse(strerror(errno));
  try {
    read_headers();
  } catch (...) {
    close(file_);
    throw;
  }
}

Core::~Core() { close(file_); }

void Core::refuse(const std::string& why) const {
  throw Error(fmt::format("core {}: {}", path_, why));
}

void Core::read_headers() {
#if !defined(__x86_64__)
  refuse("forksafe reads cores on x86-64 only");
#endif
  struct stat info = {};
  if (fstat(file_, &info) != 0) refuse(strerror(errno));
  if (!S_ISREG(info.st_mode)) refuse("it is not a regular file");
  const auto size = static_cast<uint64_t>(info.st_size);
  ElfW(Ehdr) header = {};
  if (!read_at(file_, &header, std::min<uint64_t>(size, sizeof header), 0)) refuse(strerror(errno));
  if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    refuse(starts_like_archive(reinterpret_cast<const char*>(header.e_ident))
               ? "it is compressed: decompress it, or use coredumpctl dump --output=FILE"
               : "it is not a core");
  }
  if (size < sizeof header) refuse("it is truncated");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != EM_X86_64) {
    refuse(fmt::format("it is of another architecture (ELF machine {}, {} bits)", header.e_machine,
                       header.e_ident[EI_CLASS] == ELFCLASS32 ? 32 : 64));
  }
  if (header.e_type != ET_CORE) refuse("it is a program or a library, not a core");
  if (header.e_phnum == PN_XNUM) refuse("it has more than 65534 segments");
  std::vector<ElfW(Phdr)> headers(header.e_phnum);
  if (header.e_phentsize != sizeof(ElfW(Phdr))) refuse("it is damaged (the program headers)");
  if (!read_at(file_, headers.data(), headers.size() * sizeof(ElfW(Phdr)), header.e_phoff)) {
    refuse("it is truncated");
  }
  std::string notes;
  for (const ElfW(Phdr) & p : headers) {
    if (p.p_type != PT_LOAD && p.p_type != PT_NOTE) continue;
    if (p.p_filesz > UINT64_MAX - p.p_offset) refuse("it is damaged (a segment)");
    if (p.p_offset + p.p_filesz > size) {
      refuse(fmt::format("it is truncated: it has {} of at least {} bytes (ulimit -c unlimited?)",
                         size, p.p_offset + p.p_filesz));
    }
    if (p.p_type == PT_NOTE) {
      if (p.p_filesz > kMostNotes - notes.size()) refuse("it is damaged (its notes are too long)");
      const size_t before = notes.size();
      notes.resize(before + p.p_filesz);
      if (!read_at(file_, notes.data() + before, p.p_filesz, p.p_offset)) refuse("it is truncated");
    } else if (p.p_filesz > 0) {
      if (p.p_filesz > UINTPTR_MAX - p.p_vaddr) refuse("it is damaged (a segment)");
      segments_.push_back({p.p_vaddr, p.p_vaddr + p.p_filesz, p.p_offset});
    }
  }
  std::sort(segments_.begin(), segments_.end(),
            [](const Segment& a, const Segment& b) { return a.begin < b.begin; });
  read_notes(notes);
  std::sort(threads_.begin(), threads_.end(),
            [](const Thread& a, const Thread& b) { return a.tid < b.tid; });
  status_.threads = static_cast<int>(threads_.size());
  if (status_.pid <= 0 || threads_.empty()) refuse("it names no process and threads");
  if (mappings_.empty()) refuse("it does not name the files that the process had loaded (NT_FILE)");
}

// A note is its three sizes, its owner and its content, each filled up to a multiple of 4.
void Core::read_notes(const std::string& notes) {
  const auto filled = [](uint64_t size) { return (size + 3) & ~uint64_t{3}; };
  for (uint64_t at = 0; at < notes.size();) {
    ElfW(Nhdr) note;
    if (!copy(notes, at, &note)) refuse("it is damaged (a note)");
    at += sizeof note;
    const uint64_t content = at + filled(note.n_namesz);
    if (content > notes.size() || note.n_descsz > notes.size() - content) {
      refuse("it is damaged (a note)");
    }
    if (notes.compare(at, note.n_namesz, "CORE", 5) == 0) {
      read_note(note.n_type, notes.substr(content, note.n_descsz));
    }
    at = content + filled(note.n_descsz);
  }
}

void Core::read_note(unsigned type, const std::string& content) {
  if (type == NT_PRSTATUS) {
    elf_prstatus status = {};
    if (!copy(content, 0, &status)) refuse("it is damaged (NT_PRSTATUS)");
    if (threads_.size() == kMostThreads)
      refuse(fmt::format("it has over {} threads", kMostThreads));
    Thread thread = {status.pr_pid, {}};
    memcpy(thread.registers, status.pr_reg, sizeof thread.registers);
    threads_.push_back(thread);
  } else if (type == NT_PRPSINFO) {
    elf_prpsinfo info = {};
    if (!copy(content, 0, &info)) refuse("it is damaged (NT_PRPSINFO)");
    status_.pid = status_.group_leader = info.pr_pid;
    status_.parent = info.pr_ppid;
    status_.user = info.pr_uid;
    status_.forked = (info.pr_flag & kForkedNoExec) != 0;
    command_.assign(info.pr_psargs, strnlen(info.pr_psargs, sizeof info.pr_psargs));
    while (!command_.empty() && command_.back() == ' ') command_.pop_back();
  } else if (type == NT_AUXV) {
    auxiliary_.resize(std::min<size_t>(content.size() / sizeof(unsigned long), 256) & ~size_t{1});
    copy(content, 0, auxiliary_.data(), auxiliary_.size());
  } else if (type == NT_FILE) {
    read_mappings(content);
  }
}

// The number of files and the size of a page; for each file where it begins and ends in memory, and
// its first page; then the names.
void Core::read_mappings(const std::string& content) {
  uint64_t head[2];  // number of files, size of a page
  if (!copy(content, 0, head, 2) || head[0] > kMostMappings - mappings_.size() ||
      head[0] > content.size() / (3 * sizeof(uint64_t)) || head[1] > uint64_t{1} << 30) {
    refuse("it is damaged (NT_FILE)");
  }
  size_t name = (2 + 3 * head[0]) * sizeof(uint64_t);
  for (uint64_t i = 0; i < head[0]; ++i) {
    uint64_t range[3];
    if (!copy(content, (2 + 3 * i) * sizeof(uint64_t), range, 3) || name >= content.size()) {
      refuse("it is damaged (NT_FILE)");
    }
    Mapping m;
    m.begin = range[0];
    m.end = range[1];
    m.offset = range[2] * head[1];
    m.path = content.c_str() + name;
    name += m.path.size() + 1;
    mappings_.push_back(m);
  }
  std::stable_sort(mappings_.begin(), mappings_.end(),
                   [](const Mapping& a, const Mapping& b) { return a.begin < b.begin; });
}

const Core::Thread* Core::thread(pid_t tid) const {
  const auto found = std::lower_bound(threads_.begin(), threads_.end(), tid,
                                      [](const Thread& t, pid_t id) { return t.tid < id; });
  return found != threads_.end() && found->tid == tid ? &*found : nullptr;
}

// What stopped the thread has interrupted the call, to which the kernel would have returned after
// that (Linux, arch/x86/kernel/signal.c; its include/linux/errno.h has the numbers).
std::optional<SystemCall> Core::system_call(pid_t tid) const {
#if defined(__x86_64__)
  constexpr long kRestartSystemCall = 512;  // ERESTARTSYS
  constexpr long kRestartBlock = 516;       // ERESTART_RESTARTBLOCK
  const Thread* found = thread(tid);
  if (found == nullptr) return std::nullopt;
  const auto& r = found->registers;
  const auto result = static_cast<long>(r[RAX]);
  if (result > -kRestartSystemCall || result < -kRestartBlock) return std::nullopt;
  const SystemCall call = {static_cast<long>(r[ORIG_RAX]),
                           {r[RDI], r[RSI], r[RDX], r[R10], r[R8], r[R9]}};
  // A wait that begins again ends at once if the word has changed (futex(2)). gcore stops one
  // thread after the other, so the others may have changed it meanwhile.
  const auto command = call.arguments[1] & FUTEX_CMD_MASK;
  uint32_t word = 0;
  if (call.number == SYS_futex && (command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET) &&
      read_memory(call.arguments[0], &word, sizeof word) &&
      word != static_cast<uint32_t>(call.arguments[2])) {
    return std::nullopt;
  }
  return call;
#else
  (void)tid;
  return std::nullopt;
#endif
}

unsigned long Core::auxiliary(unsigned long type) const {
  for (size_t i = 0; i + 1 < auxiliary_.size(); i += 2) {
    if (auxiliary_[i] == type) return auxiliary_[i + 1];
  }
  return 0;
}

bool Core::read_memory(uintptr_t address, void* buffer, size_t size) const {
  auto* to = static_cast<char*>(buffer);
  while (size > 0) {
    auto segment = std::upper_bound(segments_.begin(), segments_.end(), address,
                                    [](uintptr_t a, const Segment& s) { return a < s.begin; });
    if (segment == segments_.begin() || address >= (--segment)->end) return false;
    const size_t part = std::min<size_t>(size, segment->end - address);
    if (!read_at(file_, to, part, segment->offset + (address - segment->begin))) return false;
    to += part;
    address += part;
    size -= part;
  }
  return true;
}

}  // namespace forksafe::cli
