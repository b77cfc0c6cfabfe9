#include "cli/table.h"

#include <algorithm>

#include "cli/format.h"

namespace kvfathom::cli {
namespace {

constexpr int kGap = 2;

std::vector<int> column_widths(const Table& table, int width) {
  std::vector<int> widths;
  for (const Column& column : table.columns) {
    widths.push_back(display_width(column.title));
  }
  for (const auto& row : table.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths.at(i) = std::max(widths.at(i), display_width(row[i].text));
    }
  }
  int total = table.indent - kGap;
  for (const int w : widths) {
    total += w + kGap;
  }
  constexpr int kNarrowest = 8;
  for (std::size_t i = 0; i < widths.size() && total > width; ++i) {
    if (table.columns[i].may_shrink) {
      const int shrunk = std::min(widths[i], std::max(kNarrowest, widths[i] - (total - width)));
      total -= widths[i] - shrunk;
      widths[i] = shrunk;
    }
  }
  return widths;
}

/// The first `cells` characters of UTF-8 text, the last one an ellipsis if some were cut.
std::string cut(const std::string& text, int cells, bool utf8) {
  if (display_width(text) <= cells) {
    return text;
  }
  std::size_t end = 0;
  for (int seen = 0; end < text.size(); ++end) {
    if ((static_cast<unsigned char>(text[end]) & 0xC0U) != 0x80U && ++seen == cells) {
      break;
    }
  }
  return text.substr(0, end) + (utf8 ? "\u2026" : "~");
}

std::string line_of(const Console& console,
                    const Table& table,
                    const std::vector<int>& widths,
                    const std::vector<Cell>& cells) {
  std::string line(static_cast<std::size_t>(table.indent), ' ');
  std::string pending;  // padding that is dropped at the end of a line
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const std::string text = cut(cells[i].text, widths[i], console.terminal.utf8);
    const std::string pad(static_cast<std::size_t>(widths[i] - display_width(text)), ' ');
    const bool right = table.columns[i].align == Align::right;
    if (text.empty()) {
      pending += pad;
    } else {
      line += pending + (right ? pad : "") + console.styled(text, cells[i].style);
      pending = right ? "" : pad;
    }
    pending += std::string(kGap, ' ');
  }
  return line.find_first_not_of(' ') == std::string::npos ? "" : line;
}

}  // namespace

void print(Console& console, const Table& table) {
  const std::vector<int> widths = column_widths(table, console.terminal.width);
  std::vector<Cell> titles;
  bool titled = false;
  for (const Column& column : table.columns) {
    titles.push_back({column.title, Style::dim});
    titled = titled || !column.title.empty();
  }
  if (titled) {
    console.line(line_of(console, table, widths, titles));
  }
  for (const auto& row : table.rows) {
    console.line(line_of(console, table, widths, row));
  }
}

}  // namespace kvfathom::cli
