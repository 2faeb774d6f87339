// SPDX-License-Identifier: Apache-2.0
#include "process/target.h"

#include <elf.h>
#include <endian.h>
#include <fcntl.h>
#include <link.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "process/process.h"

// Our own ELF header; the linker defines it.
extern "C" __attribute__((visibility("hidden"))) const ElfW(Ehdr) __ehdr_start;

namespace forksafe::cli {
namespace {

// The longest chain of interpreters (Linux, fs/exec.c, exec_binprm).
constexpr int kMaxInterpreters = 5;
// How many bytes of a file the kernel searches for the interpreter (BINPRM_BUF_SIZE).
constexpr size_t kHeadSize = 256;

/// 0, or why the kernel would not run this file.
int why_not_executable(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return errno;
  if (S_ISDIR(status.st_mode)) return EISDIR;
  if (!S_ISREG(status.st_mode)) return EACCES;
  return faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0 ? 0 : errno;
}

Error cannot_run(const std::string& path, int error) {
  std::string reason = strerror(error);
  if (error == EACCES) {
    struct stat status;
    const bool no_run_bit = stat(path.c_str(), &status) == 0 && (status.st_mode & 0111) == 0;
    reason = no_run_bit ? "it has no run bit (chmod +x gives it one)" : "no permission to run it";
  }
  return Error((path.empty() ? "''" : path) + ": " + reason, exec_status(error));
}

/// The interpreter after `#!` in `head`, the start of a file. None if the kernel would not take the
/// file for a script (fs/binfmt_script.c).
std::optional<std::string> interpreter_in(std::string_view head) {
  if (head.substr(0, 2) != "#!") return std::nullopt;
  const size_t newline = head.find_first_of(std::string_view("\n\0", 2));
  const bool whole = newline != std::string_view::npos || head.size() < kHeadSize;
  head = head.substr(2, newline == std::string_view::npos ? newline : newline - 2);
  const size_t start = head.find_first_not_of(" \t");
  if (start == std::string_view::npos) return std::nullopt;
  const size_t end = head.find_first_of(" \t", start);
  // The kernel refuses a name that goes on after the bytes that it reads.
  if (end == std::string_view::npos && !whole) return std::nullopt;
  return std::string(head.substr(start, end == std::string_view::npos ? end : end - start));
}

Error bad_interpreter(const std::string& script, const std::string& interpreter, int error) {
  if (error == ENOENT && interpreter.back() == '\r') {
    return Error(script +
                     ": its #! line ends with CR LF, so the kernel takes the CR for a part "
                     "of the interpreter's name: save the file with LF line ends",
                 127);
  }
  return Error(script + ": its interpreter " + cannot_run(interpreter, error).what(),
               exec_status(error));
}

/// The end of the `#!` chain, or nothing if the kernel would fail with ENOEXEC.
std::optional<std::string> follow_interpreters(const std::string& start) {
  std::string path = start;
  for (int depth = 0;; ++depth) {
    const File file(path);
    if (file.fd() < 0) return path;  // it may still be executable
    const std::string head = file.read(0, kHeadSize);
    if (head.compare(0, SELFMAG, ELFMAG) == 0) return path;
    const std::optional<std::string> interpreter = interpreter_in(head);
    if (!interpreter) return std::nullopt;
    if (depth == kMaxInterpreters) {
      throw Error(start + ": more than " + std::to_string(kMaxInterpreters) +
                      " #! interpreters in a row, which the kernel refuses",
                  126);
    }
    const int error = why_not_executable(*interpreter);
    if (error != 0) throw bad_interpreter(path, *interpreter, error);
    path = *interpreter;
  }
}

struct Capabilities {
  uint64_t inheritable = 0, permitted = 0, bounding = 0;
};

Capabilities own_capabilities() {
  Capabilities result;
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) == 0) {
    result.inheritable = data[0].inheritable | static_cast<uint64_t>(data[1].inheritable) << 32;
    result.permitted = data[0].permitted | static_cast<uint64_t>(data[1].permitted) << 32;
  }
  for (unsigned long i = 0; i < 64; ++i) {
    if (prctl(PR_CAPBSET_READ, i) == 1) result.bounding |= uint64_t{1} << i;
  }
  return result;
}

/// Whether file capabilities would make the loader ignore LD_PRELOAD. Capabilities that belong to
/// another user namespace (revision 3, seen from here) have no effect.
bool gains_capabilities(const std::string& path, bool no_new_privileges) {
  vfs_cap_data file = {};
  const ssize_t size = getxattr(path.c_str(), "security.capability", &file, sizeof file);
  if (size < static_cast<ssize_t>(XATTR_CAPS_SZ_1)) return false;
  if ((le32toh(file.magic_etc) & VFS_CAP_FLAGS_EFFECTIVE) != 0) return true;
  const auto wide = [](uint32_t low, uint32_t high) {
    return le32toh(low) | static_cast<uint64_t>(le32toh(high)) << 32;
  };
  const uint64_t inheritable = wide(file.data[0].inheritable, file.data[1].inheritable);
  const uint64_t permitted = wide(file.data[0].permitted, file.data[1].permitted);
  const Capabilities own = own_capabilities();
  uint64_t gained = (inheritable & own.inheritable) | (permitted & own.bounding);
  if (no_new_privileges) gained &= own.permitted;
  return gained != 0;
}

/// Why the kernel would set AT_SECURE, or null (Linux, fs/exec.c, bprm_fill_uid and
/// security/commoncap.c, cap_bprm_creds_from_file). A security module may set it too, which can't
/// be seen from here.
const char* why_secure(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return nullptr;
  struct statvfs mount;
  const bool obeyed = statvfs(path.c_str(), &mount) != 0 || (mount.f_flag & ST_NOSUID) == 0;
  const bool no_new_privileges = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
  const bool set_id = obeyed && !no_new_privileges;
  const bool set_user = set_id && (status.st_mode & S_ISUID) != 0;
  const bool set_group = set_id && (status.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);

  const uid_t user = set_user ? status.st_uid : geteuid();
  const gid_t group = set_group ? status.st_gid : getegid();
  if (user != getuid()) {
    return set_user ? "it is setuid to another user"
                    : "the effective user is not the real user here";
  }
  if (group != getgid()) {
    return set_group ? "it is setgid to another group"
                     : "the effective group is not the real group here";
  }
  if (getuid() != 0 && obeyed && gains_capabilities(path, no_new_privileges)) {
    return "it has file capabilities";
  }
  return nullptr;
}

/// The loader that an ELF file of our own class names; empty if it names none.
std::string loader_of(const File& file, const ElfW(Ehdr) & header) {
  for (int i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    const size_t offset = header.e_phoff + size_t{header.e_phentsize} * static_cast<size_t>(i);
    if (!file.read(offset, &segment)) break;
    if (segment.p_type != PT_INTERP || segment.p_filesz > PATH_MAX) continue;
    const std::string path = file.read(segment.p_offset, segment.p_filesz);
    return path.substr(0, path.find('\0'));
  }
  return "";
}

}  // namespace

int exec_status(int error) { return error == ENOENT ? 127 : 126; }

std::string find_command(const std::string& name) {
  if (name.empty() || name.find('/') != std::string::npos) {
    const int error = why_not_executable(name);
    if (error != 0) throw cannot_run(name, error);
    return name;
  }
  const char* given = getenv("PATH");
  std::string path = given != nullptr ? given : "/bin:/usr/bin";  // glibc's confstr(_CS_PATH)
  path += ':';
  std::string refused;
  for (size_t start = 0, end; (end = path.find(':', start)) != std::string::npos; start = end + 1) {
    std::string candidate = path.substr(start, end - start);
    if (!candidate.empty()) candidate += '/';
    candidate += name;
    const int error = why_not_executable(candidate);
    if (error == 0) return candidate;
    // As in a shell, a folder that can't be searched does not have the command.
    struct stat status;
    if (error == EACCES && refused.empty() && stat(candidate.c_str(), &status) == 0) {
      refused = candidate;
    }
  }
  if (!refused.empty()) throw cannot_run(refused, EACCES);
  throw Error(name + ": no such command in PATH", 127);
}

std::string find_program(const std::string& path) {
  // execvp runs a file that is neither ELF nor #! with /bin/sh.
  std::optional<std::string> program = follow_interpreters(path);
  if (!program) program = follow_interpreters("/bin/sh");
  if (!program) throw Error("/bin/sh: not a program", 126);
  return *program;
}

void check_program(const std::string& path) {
  const File file(path);
  ElfW(Ehdr) header;
  if (file.read(0, &header)) {
    const std::string other = "; forksafe's library can't be loaded into it";
    if (header.e_ident[EI_CLASS] != __ehdr_start.e_ident[EI_CLASS]) {
      const bool narrow = header.e_ident[EI_CLASS] == ELFCLASS32;
      throw Error(path + ": a " + (narrow ? "32" : "64") + "-bit program, and forksafe is " +
                  (narrow ? "64" : "32") + "-bit" + other);
    }
    if (header.e_machine != __ehdr_start.e_machine ||
        header.e_ident[EI_DATA] != __ehdr_start.e_ident[EI_DATA]) {
      throw Error(path + ": made for another processor (ELF machine " +
                  std::to_string(header.e_machine) + ", this one is " +
                  std::to_string(__ehdr_start.e_machine) + ")" + other);
    }
    // ld-linux-x86-64.so.2 PROGRAM: the loader itself obeys LD_PRELOAD.
    const std::string loader = is_loader(path) ? path : loader_of(file, header);
    if (loader.empty()) {
      throw Error(path +
                  ": statically linked, so nothing can be preloaded into it; link it dynamically, "
                  "or if it starts another program, put forksafe before that one (tini forksafe "
                  "COMMAND)");
    }
    if (loader.find("/ld-musl-") != std::string::npos) {
      throw Error(path + ": linked with musl (" + loader + "), and forksafe needs glibc");
    }
    const int error = why_not_executable(loader);
    if (error != 0) throw bad_interpreter(path, loader, error);
  }
  if (const char* reason = why_secure(path)) {
    throw Error(path + ": " + reason +
                ", so the loader ignores LD_PRELOAD; if it starts another program, put forksafe "
                "before that one (sudo forksafe COMMAND)");
  }
}

void check_target(const std::string& name) { check_program(find_program(find_command(name))); }

}  // namespace forksafe::cli
