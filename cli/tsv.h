// Tables of data/truth: a title line, then a row a line, cells between tabs, # before remarks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace kvfathom::cli {

[[nodiscard]] std::vector<std::string_view> split(std::string_view text, char separator);

/// One line of a table, its cells by column name. InputError names file, line and column.
class TableLine {
 public:
  TableLine(const std::vector<std::string_view>& columns, std::string_view line, std::string where);

  [[nodiscard]] std::string text(std::string_view column) const;
  [[nodiscard]] std::int64_t count(std::string_view column, std::int64_t low) const;
  /// 0 or more.
  [[nodiscard]] double size(std::string_view column) const;
  /// "FILE line 7: column", for messages.
  [[nodiscard]] std::string place(std::string_view column) const;

 private:
  const std::vector<std::string_view>& columns_;
  std::vector<std::string_view> cells_;
  std::string where_;
};

/// Calls `visit` for every row, with the number of its line in the file.
void for_each_line(const std::string& path,
                   const std::function<void(const TableLine&, std::size_t)>& visit);

}  // namespace kvfathom::cli
