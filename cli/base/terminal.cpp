// SPDX-License-Identifier: Apache-2.0
#include "base/terminal.h"

#include <fmt/format.h>
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

// Of each Colour; the first one ends the others.
constexpr const char* kCodes[] = {"0", "1", "31", "32", "33"};

// The character, or '?' for a control character, also for one from U+0080 to U+009F in UTF-8.
char printable_at(const std::string& text, size_t i) {
  const auto c = static_cast<unsigned char>(text[i]);
  const bool is_high = i > 0 && text[i - 1] == '\xc2' && c >= 0x80 && c < 0xa0;
  return c < ' ' || c == 0x7f || is_high ? '?' : text[i];
}

}  // namespace

std::string paint(const std::string& text, Colour colour) {
  if (colour == Colour::kNone || text.empty() || !has_colours()) return text;
  // shown() puts the codes there. No name has a NUL.
  const auto mark = [](Colour c) {
    return std::string{'\0', static_cast<char>('0' + static_cast<int>(c))};
  };
  return mark(colour) + text + mark(Colour::kNone);
}

std::string shown(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\0' && i + 1 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '4') {
      result += std::string("\033[") + kCodes[text[++i] - '0'] + "m";
    } else {
      result += text[i] == '\n' || text[i] == '\t' ? text[i] : printable_at(text, i);
    }
  }
  return result;
}

void print_text(const std::string& text) { fmt::print("{}", shown(text)); }

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

std::string printable(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) result += printable_at(text, i);
  return result;
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
