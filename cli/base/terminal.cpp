// SPDX-License-Identifier: Apache-2.0
#include "base/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace forksafe::cli {
namespace {

bool has_colours() {
  static const bool result = [] {
    const char* none = getenv("NO_COLOR");
    const char* terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) != 0 && (none == nullptr || *none == '\0') &&
           terminal != nullptr && strcmp(terminal, "dumb") != 0;
  }();
  return result;
}

}  // namespace

std::string paint(const std::string& text, Colour colour) {
  static const char* const kCodes[] = {"", "1", "31", "32", "33"};
  if (colour == Colour::kNone || text.empty() || !has_colours()) return text;
  return std::string("\033[") + kCodes[static_cast<int>(colour)] + "m" + text + "\033[0m";
}

std::string table(const std::vector<std::string>& titles,
                  const std::vector<std::vector<Cell>>& rows) {
  std::vector<size_t> widths;
  for (size_t i = 0; i < titles.size(); ++i) {
    widths.push_back(titles[i].size());
    for (const auto& row : rows) widths[i] = std::max(widths[i], row[i].text.size());
  }
  std::string result;
  const auto add = [&](size_t column, const Cell& cell) {
    result += paint(cell.text, cell.colour);
    if (column + 1 == titles.size()) {
      result += '\n';
    } else {
      result.append(widths[column] + 2 - cell.text.size(), ' ');
    }
  };
  for (size_t i = 0; i < titles.size(); ++i) add(i, {titles[i], Colour::kBold});
  for (const auto& row : rows) {
    for (size_t i = 0; i < titles.size(); ++i) add(i, row[i]);
  }
  return result;
}

std::string printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
  }
  return text;
}

std::string wrapped(const std::string& text, const std::string& indent, size_t width) {
  std::string result;
  std::string line;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (!line.empty() && indent.size() + line.size() + 1 + word.size() > width) {
      result += indent + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return result + indent + line + "\n";
}

}  // namespace forksafe::cli
