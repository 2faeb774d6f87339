// SPDX-License-Identifier: Apache-2.0
// Processes that run while the command looks at them, and the command's answers, each stream by
// itself.
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../scenarios/setting.h"
#include "support.h"

namespace forksafe_test {

using Json = nlohmann::ordered_json;

bool contains(const std::string& text, const std::string& part);

/// A process in a session of its own, which is ended and reaped with this object.
class Background {
 public:
  explicit Background(const Command& command);
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  pid_t pid() const { return pid_; }
  std::string output() const;  ///< so far
  std::string errors() const;
  /// The process's wait status once it has ended; waits for that `seconds` at most, then throws.
  int wait(double seconds);
  bool has_ended();
  /// The process that a specimen says "ready" of. Throws when it does not within 30 seconds.
  pid_t ready();

 private:
  pid_t pid_ = 0;
  int output_;
  int errors_;
  bool ended_ = false;
  int status_ = 0;
};

/// What the command said.
struct Answer {
  int status;  ///< 128 and the signal's number where a signal ended it
  std::string output;
  std::string errors;

  Json json() const;             ///< of the output
  std::string describe() const;  ///< for a person, when an assertion fails
};

/// Runs forksafe, a minute at most.
Answer ask(std::vector<std::string> words, const Environment& environment = {});

/// A command of the specimen (programs/specimen.cpp) with a BLAS and two threads.
Command specimen(const Blas& blas, const std::vector<std::string>& situation);
/// The specimen without any runtime; and the one that is compiled with OpenMP.
Command specimen(const std::vector<std::string>& situation);
Command omp_specimen(const std::string& situation);
/// The path of Intel's OpenMP in its wheel.
std::string intel_openmp();
/// A child whose team is lost, with an OpenMP runtime that is loaded by its path. The program sets
/// KMP_INIT_AT_FORK to `value`, unless it is empty.
Command region_specimen(const std::string& runtime, const std::string& value);
/// omp_specimen with GNU OpenMP linked in, its names exported or not. A skip where there is no
/// archive.
Command static_omp_specimen(const std::string& situation, bool exported);

/// Fails unless forksafe ended with status 2, nothing on standard output, and one line of its own
/// on standard error that has `part`.
void check_refused(const Answer& answer, const std::string& part);

/// What a command prints on a terminal.
std::string on_terminal(const std::vector<std::string>& words, const Environment& environment);

/// Whether a process of this command line, or a part of it, is there.
bool is_running(const std::string& part_of_command_line);

}  // namespace forksafe_test
