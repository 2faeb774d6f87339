// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <climits>

namespace forksafe {

/// The decimal number at the beginning of `text`, behind spaces and a sign; 0 if there is none, and
/// LONG_MAX if it is larger. `*end` is what follows it.
///
/// The library does not call strtol: glibc's headers from 2.38 on turn it into __isoc23_strtol, and
/// a library that was built with them would need glibc 2.38.
inline long parse_number(const char* text, const char** end = nullptr) {
  while (*text == ' ' || (*text >= '\t' && *text <= '\r')) ++text;
  const bool negative = *text == '-';
  if (negative || *text == '+') ++text;
  long value = 0;
  for (; *text >= '0' && *text <= '9'; ++text) {
    const long digit = *text - '0';
    value = value > (LONG_MAX - digit) / 10 ? LONG_MAX : value * 10 + digit;
  }
  if (end != nullptr) *end = text;
  return negative ? -value : value;
}

}  // namespace forksafe
