// SPDX-License-Identifier: Apache-2.0
// Runs a program under a watchdog: a test that waits for a hang must not hang itself.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace forksafe_test {

struct Command {
  std::vector<std::string> arguments;
  std::map<std::string, std::string> environment;  ///< added to this process's
  double quiet_seconds = 30;  ///< so long without output, and it is looked at: slow, or stuck?
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
  /// How many forks have come back well: dots in the output before anything else.
  int forks() const;
  /// All of it for a person, when an assertion fails.
  std::string describe() const;
};

/// Runs `command` in a session of its own. When it is stuck, looks at it, then ends exactly the
/// processes of that session and reaps them.
Outcome run(const Command& command);

}  // namespace forksafe_test
