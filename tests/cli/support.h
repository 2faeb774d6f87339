// SPDX-License-Identifier: Apache-2.0
// Helpers for the tests of the command: folders, installed programs, the command as built.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "process.h"

namespace forksafe_test {

/// A folder that every user may read. The destructor removes it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

bool contains(const std::string& text, const std::string& part);
/// How many times `part` stands in `text`.
int count(const std::string& text, const std::string& part);
std::vector<std::string> lines_of(const std::string& text);

void write_file(const std::string& path, const std::string& content, unsigned mode = 0644);
std::string read_file(const std::string& path);

/// Ends the test with status 77: it can't run on this system.
[[noreturn]] void skip(const std::string& reason);

/// The path of a program in PATH, /sbin or /usr/sbin. Skips the test if it is not installed.
std::string installed(const std::string& name);

/// The command and the library in the build folder.
std::string forksafe_command();
std::string forksafe_library();

using Environment = std::map<std::string, std::string>;

/// Runs `words`, for at most 30 seconds.
Outcome run_words(const std::vector<std::string>& words, const Environment& environment = {});

/// forksafe with `words`.
Outcome run_forksafe(std::vector<std::string> words, const Environment& environment = {});

/// Runs a script with /bin/sh. $FORKSAFE_COMMAND is the path of the command.
Outcome run_shell(const std::string& script, Environment environment = {});

}  // namespace forksafe_test
