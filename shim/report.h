// SPDX-License-Identifier: Apache-2.0
// The log: one line for each module that was adopted and each fork that could not be made whole.
//
// Lines are put together in a fixed buffer and written with one write(2): no stdio, no allocation,
// so that handlers may report too.
#pragma once

#include <cstddef>

namespace forksafe {

/// A line of text in a fixed buffer; what does not fit is cut off.
class Line {
 public:
  Line& add(const char* text);
  Line& add(long number);
  /// What somebody else wrote: a control character becomes a question mark, and what is longer than
  /// 200 characters is cut, so that the rest of the line keeps its place.
  Line& add_foreign(const char* text);
  /// Ends the line with a newline, in place of the last character where there is no room.
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

/// The same to standard error: for options that can't be read.
void report_to_stderr(const char* line);

}  // namespace forksafe
