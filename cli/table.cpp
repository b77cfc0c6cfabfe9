#include "cli/table.h"

#include <algorithm>

#include "cli/format.h"

namespace kvfathom::cli {
namespace {

constexpr int kGap = 2;

bool has_cells(const Table& table, const std::vector<Cell>& row) {
  return row.size() == table.columns.size();
}

std::vector<int> natural_widths(const Table& table) {
  std::vector<int> widths;
  for (const Column& column : table.columns) {
    widths.push_back(display_width(column.title));
  }
  for (const auto& row : table.rows) {
    for (std::size_t i = 0; i < (has_cells(table, row) ? row.size() : 0); ++i) {
      widths.at(i) = std::max(widths.at(i), display_width(row[i].text));
    }
  }
  return widths;
}

int total_width(const Table& table, const std::vector<int>& widths) {
  int total = table.indent - kGap;
  for (const int w : widths) {
    total += w + kGap;
  }
  return total;
}

/// Without the columns that it can do without, as far as `width` asks for.
Table narrowed(Table table, int width) {
  while (total_width(table, natural_widths(table)) > width) {
    const auto first = std::ranges::max_element(table.columns, {}, &Column::give_up);
    if (first == table.columns.end() || first->give_up == 0) {
      break;
    }
    const auto at = first - table.columns.begin();
    for (auto& row : table.rows) {
      if (has_cells(table, row)) {
        row.erase(row.begin() + at);
      }
    }
    table.columns.erase(first);
  }
  return table;
}

std::vector<int> column_widths(const Table& table, int width) {
  std::vector<int> widths = natural_widths(table);
  int total = total_width(table, widths);
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
  const Table shown = narrowed(table, console.terminal.width);
  const std::vector<int> widths = column_widths(shown, console.terminal.width);
  std::vector<Cell> titles;
  bool titled = false;
  for (const Column& column : shown.columns) {
    titles.push_back({column.title, Style::dim});
    titled = titled || !column.title.empty();
  }
  if (titled) {
    console.line(line_of(console, shown, widths, titles));
  }
  for (const auto& row : shown.rows) {
    if (row.size() == 1 && !has_cells(shown, row)) {
      console.paragraph(console.styled(row.front().text, row.front().style), shown.indent);
    } else {
      console.line(line_of(console, shown, widths, row));
    }
  }
}

}  // namespace kvfathom::cli
