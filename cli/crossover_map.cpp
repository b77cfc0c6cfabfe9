// Who wins by length and bandwidth, or prefixes at once: in characters, and as SVG.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>

#include "cli/crossover.h"
#include "cli/format.h"

namespace kvfathom::cli {
namespace {

constexpr std::size_t kLabel = 12;

std::string right_aligned(const std::string& label) {
  return std::string(kLabel - std::min(kLabel, label.size()), ' ') + label;
}
std::string row_label(double bytes_per_s) {
  return right_aligned(rounded(bytes_per_s / 1e9) + " GB/s");
}
std::string row_label(std::int64_t n_prefixes) {
  return right_aligned(thousands(n_prefixes) + " at once");
}

template <class Row>
double ratio_at(const CrossoverMap<Row>& map, std::size_t row, std::size_t column) {
  return map.ratios[row * map.lengths_tokens.size() + column];
}

/// The i-th of `n` places spread over `size` rows or columns.
std::size_t spread(int i, int n, std::size_t size) {
  return static_cast<std::size_t>(i) * (size - 1) / static_cast<std::size_t>(n - 1);
}

/// Fetching far ahead, ahead, about even, recomputing ahead, far ahead.
const char* shade(double ratio, bool utf8) {
  constexpr std::array<const char*, 5> kBlocks{"█", "▓", "▒", "░", "·"};
  constexpr std::array<const char*, 5> kLetters{"F", "f", "=", "r", "R"};
  constexpr double kFar = 3.0;
  constexpr double kEven = 1.1;
  const std::size_t level = ratio >= kFar         ? 0
                            : ratio >= kEven      ? 1
                            : ratio > 1.0 / kEven ? 2
                            : ratio > 1.0 / kFar  ? 3
                                                  : 4;
  return (utf8 ? kBlocks : kLetters).at(level);
}

/// printf into a string, of at most a few hundred characters.
template <class... T>
std::string formatted(const char* format, T... values) {
  std::array<char, 512> text{};
  std::snprintf(text.data(), text.size(), format, values...);
  return text.data();
}

/// Text of a picture, its own markup escaped.
std::string label(int x, int y, const char* anchor, const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '<') {
      safe += "&lt;";
    } else if (c == '&') {
      safe += "&amp;";
    } else {
      safe += c;
    }
  }
  return formatted(R"(<text x="%d" y="%d" text-anchor="%s">)", x, y, anchor) + safe + "</text>\n";
}

/// Blue where fetching wins, orange where recomputing does, full at ten times.
std::string colour(double ratio) {
  constexpr double kPale = 245.0;
  constexpr double kRange = 175.0;
  const double strength = std::min(1.0, std::abs(std::log10(ratio)));
  const int full = static_cast<int>(kPale);
  const int faded = static_cast<int>(std::lround(kPale - kRange * strength));
  const int between = faded + (full - faded) / 3;
  return ratio > 1.0 ? formatted("rgb(%d,%d,%d)", faded, between, full)
                     : formatted("rgb(%d,%d,%d)", full, between, faded);
}

template <class Row>
void print_rows(Console& console, const CrossoverMap<Row>& map) {
  const int n_rows = std::min(13, static_cast<int>(map.rows.size()));
  constexpr int kIndent = static_cast<int>(kLabel) + 2;
  const int columns = std::clamp(console.terminal.width - kIndent - 2, 20, 60);
  console.paragraph(console.terminal.utf8
                        ? "Who wins: █ fetch by 3x, ▓ fetch, ▒ even, ░ recompute, · by 3x"
                        : "Who wins: F fetch by 3x, f fetch, = even, r recompute, R by 3x");
  for (int row = 0; row < n_rows; ++row) {
    const std::size_t at = spread(row, n_rows, map.rows.size());
    std::string line = row_label(map.rows[at]) + "  ";
    for (int column = 0; column < columns; ++column) {
      const std::size_t length = spread(column, columns, map.lengths_tokens.size());
      line += shade(ratio_at(map, at, length), console.terminal.utf8);
    }
    console.line(line);
  }
  const std::string last = counted(map.lengths_tokens.back(), "token");
  const int space = columns - 1 - display_width(last);
  console.line(std::string(kIndent, ' ') + "1" +
               std::string(static_cast<std::size_t>(std::max(1, space)), ' ') + last);
}

template <class Row>
std::string picture(const CrossoverMap<Row>& map, const std::string& title) {
  constexpr int kCell = 6;
  constexpr int kLeft = 90;
  constexpr int kTop = 40;
  constexpr int kTicks = 4;
  const auto n_rows = static_cast<int>(map.rows.size());
  const auto n_columns = static_cast<int>(map.lengths_tokens.size());
  const int width = n_columns * kCell;
  const int row_height = width / n_rows;  // a square, whatever its rows
  const int height = n_rows * row_height;
  std::string svg = formatted(R"(<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" )"
                              R"(font-size="12" width="%d" height="%d">)",
                              kLeft + width + 60,
                              kTop + height + 50) +
                    "\n";
  svg += label(kLeft, 20, "start", title + ": blue, fetching is quicker; orange, recomputing");
  for (int row = 0; row < n_rows; ++row) {
    for (int column = 0; column < n_columns; ++column) {
      const double ratio =
          ratio_at(map, static_cast<std::size_t>(row), static_cast<std::size_t>(column));
      svg += formatted(R"(<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>)",
                       kLeft + column * kCell,
                       kTop + row * row_height,
                       kCell,
                       row_height,
                       colour(ratio).c_str()) +
             "\n";
    }
  }
  for (int tick = 0; tick <= kTicks; ++tick) {
    const std::size_t row = spread(tick, kTicks + 1, map.rows.size());
    const std::size_t column = spread(tick, kTicks + 1, map.lengths_tokens.size());
    const int y = kTop + static_cast<int>(row) * row_height + row_height / 2 + 5;
    svg += label(kLeft - 6, y, "end", row_label(map.rows[row]));
    svg += label(kLeft + static_cast<int>(column) * kCell,
                 kTop + height + 18,
                 "middle",
                 thousands(map.lengths_tokens[column]));
  }
  return svg + label(kLeft + width / 2, kTop + height + 38, "middle", "tokens of prefix") +
         "</svg>\n";
}

}  // namespace

void print_map(Console& console, const BandwidthMap& map) {
  print_rows(console, map);
}
void print_map(Console& console, const BatchMap& map) {
  print_rows(console, map);
}
std::string map_svg(const BandwidthMap& map, const std::string& title) {
  return picture(map, title);
}
std::string map_svg(const BatchMap& map, const std::string& title) {
  return picture(map, title);
}

}  // namespace kvfathom::cli
