// SPDX-License-Identifier: Apache-2.0
// The words of a command line: for a POSIX shell, and for exec.
#pragma once

#include <string>
#include <vector>

namespace forksafe::cli {

/// `text` as a POSIX shell reads it back as one word.
std::string shell_quote(const std::string& text);

/// Words as one types them to a POSIX shell.
std::string shell_line(const std::vector<std::string>& words);

/// What exec takes for `words`, which must outlive it.
std::vector<char*> as_argv(const std::vector<std::string>& words);

}  // namespace forksafe::cli
