// SPDX-License-Identifier: Apache-2.0
// The log: one line for each module that was adopted, and for each fork whose child could not be
// made whole.
//
// A line is put together in a fixed buffer and written with one write(2). Handlers may report too,
// because this uses no stdio and allocates nothing.
#pragma once

#include <cstddef>

namespace forksafe {

/// A line of text in a fixed buffer. Text that does not fit is cut off. A control character becomes
/// a question mark, so a path with a newline can't forge a line of the log.
class Line {
 public:
  Line& add(const char* text);
  Line& add(long number);
  /// Adds text that somebody else wrote. More than 200 characters of it are cut, so there is room
  /// for the rest of the line.
  Line& add_foreign(const char* text);
  /// Ends the line with a newline. In a full buffer it replaces the last character.
  Line& end();
  const char* text() const { return text_; }
  size_t size() const { return size_; }

 private:
  char text_[1024] = "";
  size_t size_ = 0;
};

/// Sends the log to `target`: "stderr", or a path that stays valid. Null, as at the start: no log.
void set_log(const char* target);

/// Whether there is a log.
bool logging();

/// Writes "forksafe[PID]: line" to the log, if there is one.
void report(const char* line);

/// Whether a write to standard error would wait for its reader.
bool stderr_is_full();

/// Writes the same to standard error: for options that can't be read.
void report_to_stderr(const char* line);

}  // namespace forksafe
