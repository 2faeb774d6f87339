// SPDX-License-Identifier: Apache-2.0
// Runs processes while the command looks at them, and collects the answers of the command.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../scenarios/setting.h"
#include "support.h"

namespace forksafe_test {

using Json = nlohmann::ordered_json;

/// A process in a session of its own. The destructor ends and reaps the session.
class Background {
 public:
  explicit Background(const Command& command);
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  pid_t pid() const { return pid_; }
  std::string output() const;  ///< so far
  std::string errors() const;
  /// Waits until the process has ended and returns its wait status. Throws after `seconds`.
  int wait(double seconds);
  bool has_ended();
  /// Waits for the line "ready PID" of a specimen and returns the PID. Throws after 30 seconds.
  pid_t ready();

 private:
  pid_t pid_ = 0;
  int output_;
  int errors_;
  bool ended_ = false;
  int status_ = 0;
};

/// The answer of the command.
struct Answer {
  int status;  ///< 128 plus the signal's number if a signal ended it
  std::string output;
  std::string errors;

  Json json() const;             ///< of the output
  std::string describe() const;  ///< for the message of a failed assertion
};

/// Runs forksafe, for at most 150 seconds.
Answer ask(std::vector<std::string> words, const Environment& environment = {});

/// What diagnose says of one process.
struct Diagnosis {
  int status;
  Json process;
  std::string at(const char* key) const;  ///< a value as a text
};

/// Fails unless this is the verdict on one process.
Diagnosis diagnosis_of(const Answer& answer);

/// The command line of specimen (programs/specimen.cpp) with a BLAS and two threads.
Command specimen(const Blas& blas, const std::vector<std::string>& situation);
/// specimen without any runtime, and omp_specimen, which is compiled with OpenMP.
Command specimen(const std::vector<std::string>& situation);
Command omp_specimen(const std::string& situation);
/// specimen with a child that starts a parallel region of `runtime`, the path of an OpenMP runtime.
/// The program sets KMP_INIT_AT_FORK to `value`, unless that is empty.
Command region_specimen(const std::string& runtime, const std::string& value);
/// omp_specimen with GNU OpenMP linked in, with its names exported or not. Skips the test if there
/// is no libgomp.a.
Command static_omp_specimen(const std::string& situation, bool exported);

/// specimen with a library that has OpenBLAS linked in, hidden, and a child that computes. Skips
/// the test if there is no libopenblas.a.
Command static_blas_specimen();

/// A Python whose child runs the lines `in_child`. Its parent forked in a function of C, while
/// another thread used Python. `library`: "CDLL", whose functions are called without Python's
/// global lock, or "PyDLL".
Command python_that_forks_in_c(const std::string& library, const std::string& in_child);

/// Fails unless forksafe ended with status 2, printed nothing on standard output, and printed one
/// line on standard error that contains `part`.
void check_refused(const Answer& answer, const std::string& part);

/// The output of a command on a terminal.
std::string on_terminal(const std::vector<std::string>& words, const Environment& environment);

/// A process id as a word of a command line.
inline std::string word(pid_t pid) { return std::to_string(pid); }

/// The state of a process in /proc; 0 if there is none.
char state_of(pid_t pid);

/// Waits until `holds`, for at most 30 seconds.
template <typename Condition>
bool comes(Condition holds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!holds() && std::chrono::steady_clock::now() < deadline) usleep(20000);
  return holds();
}

/// Whether a process with this part in its command line exists.
bool is_running(const std::string& part_of_command_line);

}  // namespace forksafe_test
