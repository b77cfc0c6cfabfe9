#include "cli/tsv.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "cli/values.h"
#include "model/error.h"
#include "model/io/file.h"

namespace kvfathom::cli {
namespace {

double parse_number(const std::string& where, std::string_view text) {
  double value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size() || value < 0) {
    throw InputError(where, "'" + std::string(text) + "' is no size", "a number of 0 or more");
  }
  return value;
}

}  // namespace

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

TableLine::TableLine(const std::vector<std::string_view>& columns,
                     std::string_view line,
                     std::string where)
    : columns_(columns), cells_(split(line, '\t')), where_(std::move(where)) {
  if (cells_.size() != columns_.size()) {
    throw InputError(where_,
                     std::to_string(cells_.size()) + " cells",
                     std::to_string(columns_.size()) + " as in the title line");
  }
}

std::string TableLine::text(std::string_view column) const {
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    if (columns_[i] == column) {
      return std::string(cells_[i]);
    }
  }
  throw InputError(where_, "no column " + std::string(column), "see data/truth/README.md");
}

std::int64_t TableLine::count(std::string_view column, std::int64_t low) const {
  return parse_count(place(column), text(column), low);
}

double TableLine::size(std::string_view column) const {
  return parse_number(place(column), text(column));
}

std::string TableLine::place(std::string_view column) const {
  return where_ + ": " + std::string(column);
}

void for_each_line(const std::string& path,
                   const std::function<void(const TableLine&, std::size_t)>& visit) {
  const std::string text = read_text_file(path);
  std::vector<std::string_view> columns;
  std::size_t number = 0;
  for (const std::string_view line : split(text, '\n')) {
    ++number;
    if (line.empty() || line.front() == '#') {
      continue;
    }
    if (columns.empty()) {
      columns = split(line, '\t');
      continue;
    }
    visit(TableLine(columns, line, path + " line " + std::to_string(number)), number);
  }
}

}  // namespace kvfathom::cli
