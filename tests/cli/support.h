// SPDX-License-Identifier: Apache-2.0
// What the tests of the command share: folders, programs found or skipped, the command as built.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "process.h"

namespace forksafe_test {

/// A folder that every user may read, for the life of the object.
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

void write_file(const std::string& path, const std::string& content, unsigned mode = 0644);
std::string read_file(const std::string& path);

/// Ends the test with status 77: it can't be run here.
[[noreturn]] void skip(const std::string& reason);

/// The path of a program in PATH (and the folders of administrators' programs), or a skip.
std::string installed(const std::string& name);

/// The command and the library in the build folder.
std::string forksafe_command();
std::string forksafe_library();

using Environment = std::map<std::string, std::string>;

/// Runs words, 30 seconds at most.
Outcome run_words(const std::vector<std::string>& words, const Environment& environment = {});

/// forksafe with `words`.
Outcome run_forksafe(std::vector<std::string> words, const Environment& environment = {});

/// A script for /bin/sh, which finds the command's path in $FORKSAFE_COMMAND.
Outcome run_shell(const std::string& script, Environment environment = {});

}  // namespace forksafe_test
