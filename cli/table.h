// A small text table: columns sized to their content, cells styled, never wider than asked if
// columns may be left out or cut.
#pragma once

#include <string>
#include <vector>

#include "cli/console.h"

namespace kvfathom::cli {

enum class Align { left, right };

struct Column {
  std::string title;
  Align align = Align::left;
  bool may_shrink = false;  ///< cut with an ellipsis if the table is too wide
  int give_up = 0;          ///< not 0: left out before that, the highest number first
};

struct Cell {
  std::string text;
  Style style = Style::plain;
};

struct Table {
  std::vector<Column> columns;
  /// One cell per column; an empty row is a blank line, a single cell a heading over all columns.
  std::vector<std::vector<Cell>> rows;
  int indent = 2;
};

/// Writes the title row and the rows. A table without titles prints none.
void print(Console& console, const Table& table);

}  // namespace kvfathom::cli
