// SPDX-License-Identifier: Apache-2.0
// Text for standard output: colours where it is a terminal, and tables.
#pragma once

#include <string>
#include <vector>

namespace forksafe::cli {

enum class Colour { kNone, kBold, kRed, kGreen, kYellow };

/// `text` in that colour where standard output is a terminal that has colours and NO_COLOR
/// (no-color.org) is not set; else as it is.
std::string paint(const std::string& text, Colour colour);

struct Cell {
  std::string text;
  Colour colour = Colour::kNone;
};

/// Rows of cells in columns as wide as their widest cell, two blanks apart, titles first.
std::string table(const std::vector<std::string>& titles,
                  const std::vector<std::vector<Cell>>& rows);

/// `text` broken at blanks into lines of at most `width` columns, each behind `indent`.
std::string wrapped(const std::string& text, const std::string& indent, size_t width = 80);

}  // namespace forksafe::cli
