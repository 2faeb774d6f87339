// SPDX-License-Identifier: Apache-2.0
#include "process/debug_file.h"

#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <cstring>
#include <vector>

#include "base/file.h"

namespace forksafe::cli {
namespace {

constexpr size_t kMostSections = 65536;
constexpr size_t kMostBytes = 1 << 20;  // of one section that is read

// What an ELF file says of its debug file.
struct Link {
  std::string build_id;  // in hexadecimal digits
  std::string name;      // in .gnu_debuglink
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

Link debug_link_of(const std::string& path) {
  Link link;
  const File file(path);
  ElfW(Ehdr) header;
  if (!file.read(0, &header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return link;
  if (header.e_shentsize != sizeof(ElfW(Shdr)) || header.e_shnum > kMostSections) return link;
  std::vector<ElfW(Shdr)> sections(header.e_shnum);
  if (!file.read(header.e_shoff, sections.data(), sections.size()) ||
      header.e_shstrndx >= sections.size()) {
    return link;
  }
  // Empty if the file does not have all of it.
  const auto content = [&](const ElfW(Shdr) & section) {
    std::string bytes(section.sh_size <= kMostBytes ? section.sh_size : 0, '\0');
    return file.read(section.sh_offset, bytes.data(), bytes.size()) ? bytes : std::string();
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
  const Link link = debug_link_of(file);
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
    if (candidate != file && debug_link_of(candidate).build_id == link.build_id) return candidate;
  }
  return "";
}

}  // namespace forksafe::cli
