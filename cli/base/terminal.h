// SPDX-License-Identifier: Apache-2.0
// Text for standard output: colours if it is a terminal, tables, wrapped lines.
#pragma once

#include <string>
#include <vector>

namespace forksafe::cli {

enum class Colour { kNone, kBold, kRed, kGreen, kYellow };

/// `text` in that colour for print_text(), if standard output is a terminal with colours and
/// NO_COLOR (no-color.org) is not set. Otherwise `text` unchanged.
std::string paint(const std::string& text, Colour colour);

/// Lines for a terminal: with the colours of paint(). Processes, threads and files choose their
/// names, so other control characters become '?'.
std::string shown(const std::string& text);

/// Prints shown(text) on standard output.
void print_text(const std::string& text);

struct Cell {
  std::string text;
  Colour colour = Colour::kNone;
};

/// A table with the titles as its first line. Each column is as wide as its widest cell; two blanks
/// separate columns.
std::string table(const std::vector<std::string>& titles,
                  const std::vector<std::vector<Cell>>& rows);

/// A text of others, for one line: control characters become '?'.
std::string printable(const std::string& text);

/// `text` broken at blanks into lines of at most `width` columns. Each line begins with `indent`.
std::string wrapped(const std::string& text, const std::string& indent, size_t width = 80);

}  // namespace forksafe::cli
