// SPDX-License-Identifier: Apache-2.0
// Words: of a command line, for a POSIX shell and for exec, and how they begin.
#pragma once

#include <string>
#include <vector>

namespace forksafe::cli {

/// `text`, quoted if needed, so that a POSIX shell reads it as one word.
std::string shell_quote(const std::string& text);

/// All words as one command line for a POSIX shell.
std::string shell_line(const std::vector<std::string>& words);

/// The argument array of exec for `words`. `words` must outlive it.
std::vector<char*> as_argv(const std::vector<std::string>& words);

/// Whether `text` begins with `prefix`.
inline bool starts_with(const std::string& text, const char* prefix) {
  return text.rfind(prefix, 0) == 0;
}

}  // namespace forksafe::cli
