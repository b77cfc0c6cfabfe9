#include "calibrate/fit/table.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "model/error.h"
#include "model/io/file.h"

namespace kvfathom {
namespace {

std::vector<std::string> split(std::string_view line) {
  line = line.ends_with('\r') ? line.substr(0, line.size() - 1) : line;
  std::vector<std::string> fields;
  for (;;) {
    const std::size_t comma = line.find(',');
    fields.emplace_back(line.substr(0, comma));
    if (comma == std::string_view::npos) {
      return fields;
    }
    line.remove_prefix(comma + 1);
  }
}

}  // namespace

Table::Table(const std::string& path) : path_(path) {
  const std::string text = read_text_file(path);
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    std::vector<std::string> fields = split(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (columns_.empty()) {
      for (std::size_t i = 0; i < fields.size(); ++i) {
        columns_[fields[i]] = i;
      }
      continue;
    }
    if (fields.size() != columns_.size()) {
      throw InputError(path + ": row " + std::to_string(rows_.size() + 1),
                       std::to_string(fields.size()) + " fields",
                       std::to_string(columns_.size()) + ", as in the header");
    }
    rows_.push_back(std::move(fields));
  }
}

const std::string& Table::text(std::size_t row, const char* column) const {
  const auto found = columns_.find(column);
  if (found == columns_.end()) {
    throw InputError(path_, "no column \"" + std::string(column) + "\"", "");
  }
  return rows_[row][found->second];
}

double Table::number(std::size_t row, const char* column) const {
  const std::string& field = text(row, column);
  double value = 0.0;
  const char* const end = field.data() + field.size();
  const auto [stopped, error] = std::from_chars(field.data(), end, value);
  if (error != std::errc() || stopped != end) {
    throw InputError(path_ + ": row " + std::to_string(row + 1),
                     std::string(column) + " is \"" + field + "\"",
                     "a number");
  }
  return value;
}

std::int64_t Table::count(std::size_t row, const char* column) const {
  return static_cast<std::int64_t>(number(row, column));
}

}  // namespace kvfathom
