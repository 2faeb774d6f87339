// SPDX-License-Identifier: Apache-2.0
// The exception that ends the command with one line for the user.
#pragma once

#include <stdexcept>
#include <string>

namespace forksafe::cli {

/// Thrown when the command can't go on. main() prints "forksafe: WHAT" on standard error and exits
/// with `status`.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what, int status = 2)
      : std::runtime_error(what), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

}  // namespace forksafe::cli
