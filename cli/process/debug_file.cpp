// SPDX-License-Identifier: Apache-2.0
#include "process/debug_file.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <unistd.h>

#include <cstring>
#include <vector>

namespace forksafe::cli {
namespace {

constexpr size_t kMostSections = 65536;
constexpr size_t kMostBytes = 1 << 20;  // of one section that is read

// What an ELF file says of its debug file.
struct Link {
  std::string build_id;  // in hexadecimal digits
  std::string name;      // in .gnu_debuglink
};

class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  /// `size` bytes; empty if the file does not have them all.
  std::string read(size_t offset, size_t size) const {
    std::string bytes(size, '\0');
    const ssize_t count = pread(fd_, bytes.data(), size, static_cast<off_t>(offset));
    return count == static_cast<ssize_t>(size) ? bytes : "";
  }

 private:
  int fd_;
};

// The build id in a section of notes, which are aligned to four bytes (elf(5)).
std::string build_id_in(const std::string& notes) {
  ElfW(Nhdr) note;
  for (size_t at = 0; at + sizeof note <= notes.size();) {
    memcpy(&note, notes.data() + at, sizeof note);
    const size_t name = at + sizeof note;
    const size_t value = name + (size_t{note.n_namesz} + 3) / 4 * 4;
    const size_t end = value + note.n_descsz;
    if (value < name || end < value || end > notes.size()) break;
    if (note.n_type == NT_GNU_BUILD_ID && notes.compare(name, 4, std::string("GNU\0", 4)) == 0) {
      std::string id;
      for (size_t i = value; i < end; ++i) {
        id += fmt::format("{:02x}", static_cast<unsigned char>(notes[i]));
      }
      return id;
    }
    at = (end + 3) / 4 * 4;
  }
  return "";
}

Link read_link(const std::string& path) {
  Link link;
  const File file(path);
  ElfW(Ehdr) header;
  const std::string start = file.read(0, sizeof header);
  if (start.compare(0, SELFMAG, ELFMAG) != 0) return link;
  memcpy(&header, start.data(), sizeof header);
  if (header.e_shentsize != sizeof(ElfW(Shdr)) || header.e_shnum > kMostSections) return link;
  std::vector<ElfW(Shdr)> sections(header.e_shnum);
  const std::string table = file.read(header.e_shoff, sections.size() * sizeof(ElfW(Shdr)));
  if (table.empty() || header.e_shstrndx >= sections.size()) return link;
  memcpy(sections.data(), table.data(), table.size());
  const auto content = [&](const ElfW(Shdr) & section) {
    return section.sh_size <= kMostBytes ? file.read(section.sh_offset, section.sh_size) : "";
  };
  const std::string names = content(sections[header.e_shstrndx]);
  for (const ElfW(Shdr) & section : sections) {
    if (section.sh_type == SHT_NOTE && link.build_id.empty()) {
      link.build_id = build_id_in(content(section));
    }
    static constexpr char kLink[] = ".gnu_debuglink";
    if (section.sh_type == SHT_PROGBITS && section.sh_name < names.size() &&
        names.compare(section.sh_name, sizeof kLink, kLink, sizeof kLink) == 0) {
      link.name = content(section);
      link.name.resize(strlen(link.name.c_str()));  // a checksum comes behind its end
    }
  }
  return link;
}

}  // namespace

std::string find_debug_file(const std::string& root, const std::string& path,
                            const std::string& file) {
  const Link link = read_link(file);
  if (link.build_id.size() < 4) return "";
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  std::vector<std::string> candidates = {fmt::format("{}/usr/lib/debug/.build-id/{}/{}.debug", root,
                                                     link.build_id.substr(0, 2),
                                                     link.build_id.substr(2))};
  if (!link.name.empty() && link.name.find('/') == std::string::npos) {
    candidates.push_back(root + folder + link.name);
    candidates.push_back(root + folder + ".debug/" + link.name);
    candidates.push_back(root + "/usr/lib/debug" + folder + link.name);
  }
  for (const std::string& candidate : candidates) {
    if (candidate != file && read_link(candidate).build_id == link.build_id) return candidate;
  }
  return "";
}

}  // namespace forksafe::cli
