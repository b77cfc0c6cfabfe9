// Who wins by length and bandwidth, or prefixes at once: in characters, and as SVG.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

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

/// Lengths worth naming on an axis: powers of ten that are not next to the last, and that.
std::vector<std::int64_t> named_lengths(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> named;
  for (std::int64_t length = 1; 2 * length < lengths.back(); length *= 10) {
    named.push_back(length);
  }
  named.push_back(lengths.back());
  return named;
}

/// Where an axis has a length: the first that is as long.
std::size_t column_of(const std::vector<std::int64_t>& lengths, std::int64_t length) {
  return static_cast<std::size_t>(std::ranges::lower_bound(lengths, length) - lengths.begin());
}

/// Two lines: marks, and the lengths below them; the last ends with the axis.
void print_axis(Console& console, const std::vector<std::int64_t>& shown) {
  std::string marks(shown.size(), '-');
  std::string labels;
  const std::string last = counted(shown.back(), "token");
  const std::size_t last_at = shown.size() - std::min(shown.size(), last.size());
  for (const std::int64_t length : named_lengths(shown)) {
    const std::size_t at = column_of(shown, length);
    const std::string text = thousands(length);
    const bool has_room = labels.empty() || at > labels.size();
    if (has_room && at + text.size() < last_at) {
      labels += std::string(at - labels.size(), ' ') + text;
    }
    marks[at] = '+';
  }
  const std::string indent(kLabel + 2, ' ');
  console.line(indent + marks);
  console.line(indent + labels + std::string(last_at - labels.size(), ' ') + last);
}

template <class Row>
void print_rows(Console& console, const CrossoverMap<Row>& map) {
  const int n_rows = std::min(13, static_cast<int>(map.rows.size()));
  constexpr int kIndent = static_cast<int>(kLabel) + 2;
  const int columns = std::min(std::clamp(console.terminal.width - kIndent - 2, 20, 60),
                               std::max(2, static_cast<int>(map.lengths_tokens.size())));
  std::vector<std::int64_t> shown;
  shown.reserve(static_cast<std::size_t>(columns));
  for (int column = 0; column < columns; ++column) {
    shown.push_back(map.lengths_tokens[spread(column, columns, map.lengths_tokens.size())]);
  }
  for (int row = 0; row < n_rows; ++row) {
    const std::size_t at = n_rows == 1 ? 0 : spread(row, n_rows, map.rows.size());
    std::string line = row_label(map.rows[at]) + "  ";
    for (int column = 0; column < columns; ++column) {
      const std::size_t length = spread(column, columns, map.lengths_tokens.size());
      line += shade(ratio_at(map, at, length), console.terminal.utf8);
    }
    console.line(line);
  }
  print_axis(console, shown);
}

constexpr int kCell = 6;
constexpr int kLeft = 90;
constexpr int kTop = 40;

/// Rows worth naming, by index: each power of ten of the rates, the nearest; every batch.
std::vector<std::pair<std::size_t, std::string>> named_rows(const BandwidthMap& map) {
  std::vector<std::pair<std::size_t, std::string>> named;
  constexpr double kStep = 10.0;
  for (double rate = map.rows.front(); rate >= 0.99 * map.rows.back(); rate /= kStep) {
    const auto nearest = std::ranges::min_element(
        map.rows, {}, [&](double row) { return std::abs(std::log(row / rate)); });
    named.emplace_back(static_cast<std::size_t>(nearest - map.rows.begin()), row_label(rate));
  }
  return named;
}
std::vector<std::pair<std::size_t, std::string>> named_rows(const BatchMap& map) {
  std::vector<std::pair<std::size_t, std::string>> named;
  for (std::size_t row = 0; row < map.rows.size(); ++row) {
    named.emplace_back(row, row_label(map.rows[row]));
  }
  return named;
}

template <class Row>
int row_height(const CrossoverMap<Row>& map) {  // a square, whatever its rows
  return static_cast<int>(map.lengths_tokens.size()) * kCell / static_cast<int>(map.rows.size());
}

/// One map under its title, `top` below the picture's edge.
template <class Row>
std::string panel(const CrossoverMap<Row>& map, const std::string& title, int top) {
  const int height = row_height(map);
  const int bottom = top + kTop + static_cast<int>(map.rows.size()) * height;
  std::string svg =
      label(6, top + 20, "start", title + ": blue, fetching is quicker; orange, recomputing");
  for (std::size_t row = 0; row < map.rows.size(); ++row) {
    for (std::size_t column = 0; column < map.lengths_tokens.size(); ++column) {
      svg += formatted(R"(<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>)",
                       kLeft + static_cast<int>(column) * kCell,
                       top + kTop + static_cast<int>(row) * height,
                       kCell,
                       height,
                       colour(ratio_at(map, row, column)).c_str()) +
             "\n";
    }
  }
  for (const auto& [row, text] : named_rows(map)) {
    svg +=
        label(kLeft - 6, top + kTop + static_cast<int>(row) * height + height / 2 + 5, "end", text);
  }
  for (const std::int64_t length : named_lengths(map.lengths_tokens)) {
    const auto column = static_cast<int>(column_of(map.lengths_tokens, length));
    svg += label(kLeft + column * kCell, bottom + 18, "middle", thousands(length));
  }
  const int middle = kLeft + static_cast<int>(map.lengths_tokens.size()) * kCell / 2;
  return svg + label(middle, bottom + 38, "middle", "tokens of prefix");
}

template <class Row>
std::string picture(const CrossoverMap<Row>& map,
                    const std::optional<CrossoverMap<Row>>& loaded,
                    const std::string& title) {
  const int width = kLeft + static_cast<int>(map.lengths_tokens.size()) * kCell + 60;
  const int height = kTop + static_cast<int>(map.rows.size()) * row_height(map) + 50;
  return formatted(R"(<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" )"
                   R"(font-size="12" width="%d" height="%d">)",
                   width,
                   loaded ? 2 * height : height) +
         "\n" + panel(map, title, 0) +
         (loaded ? panel(*loaded, title + ", under the load", height) : "") + "</svg>\n";
}

}  // namespace

void print_map(Console& console, const BandwidthMap& map) {
  print_rows(console, map);
}
void print_map(Console& console, const BatchMap& map) {
  print_rows(console, map);
}
std::string map_svg(const CrossoverAnswer& answer, const std::string& title) {
  return answer.batch_map ? picture(*answer.batch_map, answer.batch_map_loaded, title)
                          : picture(*answer.map, answer.map_loaded, title);
}

}  // namespace kvfathom::cli
