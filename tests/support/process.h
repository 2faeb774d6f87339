// SPDX-License-Identifier: Apache-2.0
// Runs a program under a watchdog, so a test of a program that hangs does not hang itself.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace forksafe_test {

/// Whether the tests run on another architecture (scripts/architectures.sh sets
/// FORKSAFE_TEST_EMULATED: the name of QEMU's, or "no"). No stacks can be read there, so a program
/// is taken for stuck when it has been quiet.
bool emulated();

struct Command {
  std::vector<std::string> arguments;
  std::map<std::string, std::string> environment;  ///< added to the environment of this process
  double quiet_seconds = 30;  ///< after so long without output, diagnose says whether it is stuck
  double total_seconds = 120;
};

struct Outcome {
  enum class End { kExited, kKilled, kStuck, kTooLong };
  End end;
  int status = 0;                  ///< exit status, or the signal that killed it
  std::string output;              ///< standard output and standard error
  std::vector<std::string> stuck;  ///< the verdict on each process of the tree that is stuck
  double seconds = 0;

  bool succeeded() const { return end == End::kExited && status == 0; }
  /// How many children returned the right result: the number of dots at the start of the output.
  int forks() const;
  /// The outcome as a text, for the message of an assertion that fails.
  std::string describe() const;
};

/// Kills and reaps a session, for at most some 5 seconds. This process must be a subreaper, so that
/// orphans of the session are its children.
void end_session(pid_t leader);

/// Runs `command` in a session of its own until it ends, is stuck, or takes too long. Then kills
/// and reaps what is left of that session.
Outcome run(const Command& command);

}  // namespace forksafe_test
