// SPDX-License-Identifier: Apache-2.0
// Reads a core file (core(5), elf(5)) of the kernel or of gcore: the threads, the memory and the
// loaded files of a process at one moment.
//
// A core may be damaged, or made to harm its reader. So each number in it is checked against the
// size of the file, each list has a limit, and the memory is read from the file piece by piece.
#pragma once

#include <sys/procfs.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "process/process.h"

namespace forksafe::cli {

class Core {
 public:
  struct Thread {
    pid_t tid;
    elf_gregset_t registers;
  };

  /// Throws Error if the file is no core, is truncated, or is of another architecture.
  explicit Core(const std::string& path);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  const std::string& path() const { return path_; }
  const ProcessStatus& status() const { return status_; }
  /// The beginning of the command line, of at most 79 characters.
  const std::string& command() const { return command_; }
  const std::vector<Mapping>& mappings() const { return mappings_; }
  const std::vector<Thread>& threads() const { return threads_; }  ///< by id
  const Thread* thread(pid_t tid) const;
  /// The system call in which a thread waited. None if it was not in one, or if something had let
  /// it go on already.
  std::optional<SystemCall> system_call(pid_t tid) const;
  /// The auxiliary vector as it is in memory (getauxval(3)).
  const std::vector<unsigned long>& auxiliary() const { return auxiliary_; }
  /// A value of it; 0 if there is none of this type.
  unsigned long auxiliary(unsigned long type) const;
  /// Copies memory of the process. False if the core does not hold all of it.
  bool read_memory(uintptr_t address, void* buffer, size_t size) const;

 private:
  struct Segment {
    uintptr_t begin;
    uintptr_t end;
    uint64_t offset;
  };

  [[noreturn]] void refuse(const std::string& why) const;
  void read_headers();
  void read_notes(const std::string& notes);
  void read_note(unsigned type, const std::string& content);
  void read_mappings(const std::string& content);

  std::string path_;
  int file_ = -1;
  ProcessStatus status_;
  std::string command_;
  std::vector<Mapping> mappings_;
  std::vector<Thread> threads_;
  std::vector<unsigned long> auxiliary_;
  std::vector<Segment> segments_;  // by address
};

}  // namespace forksafe::cli
