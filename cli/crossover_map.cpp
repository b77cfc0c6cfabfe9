// Who wins by length and bandwidth: in characters, and as SVG.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>

#include "cli/crossover.h"
#include "cli/format.h"

namespace kvfathom::cli {
namespace {

std::string rate_label(double bytes_per_s) {
  constexpr std::size_t kDigits = 5;
  const std::string number = rounded(bytes_per_s / 1e9);
  return std::string(kDigits - std::min(kDigits, number.size()), ' ') + number + " GB/s";
}

double ratio_at(const CrossoverMap& map, std::size_t row, std::size_t column) {
  return map.ratios[row * map.lengths_tokens.size() + column];
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

}  // namespace

void print_map(Console& console, const CrossoverMap& map) {
  constexpr int kRows = 13;
  constexpr int kLabel = 14;
  const int columns = std::clamp(console.terminal.width - kLabel - 2, 20, 60);
  const auto n = static_cast<int>(map.lengths_tokens.size());
  console.paragraph(console.terminal.utf8
                        ? "Who wins: █ fetch by 3x, ▓ fetch, ▒ even, ░ recompute, · by 3x"
                        : "Who wins: F fetch by 3x, f fetch, = even, r recompute, R by 3x");
  for (int row = 0; row < kRows; ++row) {
    const auto at = static_cast<std::size_t>(row * (n - 1) / (kRows - 1));
    std::string line = "  " + rate_label(map.bandwidths_bytes_per_s[at]) + "  ";
    for (int column = 0; column < columns; ++column) {
      const auto length = static_cast<std::size_t>(column * (n - 1) / (columns - 1));
      line += shade(ratio_at(map, at, length), console.terminal.utf8);
    }
    console.line(line);
  }
  const std::string last = counted(map.lengths_tokens.back(), "token");
  const int space = columns - 1 - display_width(last);
  console.line(std::string(kLabel, ' ') + "1" +
               std::string(static_cast<std::size_t>(std::max(1, space)), ' ') + last);
}

std::string map_svg(const CrossoverMap& map, const std::string& title) {
  constexpr int kCell = 6;
  constexpr int kLeft = 90;
  constexpr int kTop = 40;
  constexpr int kTicks = 4;
  const auto n = static_cast<int>(map.lengths_tokens.size());
  const int size = n * kCell;
  std::string svg = formatted(R"(<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" )"
                              R"(font-size="12" width="%d" height="%d">)",
                              kLeft + size + 60,
                              kTop + size + 50) +
                    "\n";
  svg += label(kLeft, 20, "start", title + ": blue, fetching is quicker; orange, recomputing");
  for (int row = 0; row < n; ++row) {
    for (int column = 0; column < n; ++column) {
      const double ratio =
          ratio_at(map, static_cast<std::size_t>(row), static_cast<std::size_t>(column));
      svg += formatted(R"(<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>)",
                       kLeft + column * kCell,
                       kTop + row * kCell,
                       kCell,
                       kCell,
                       colour(ratio).c_str()) +
             "\n";
    }
  }
  for (int tick = 0; tick <= kTicks; ++tick) {
    const int i = tick * (n - 1) / kTicks;
    const auto at = static_cast<std::size_t>(i);
    svg +=
        label(kLeft - 6, kTop + i * kCell + 8, "end", rate_label(map.bandwidths_bytes_per_s[at]));
    svg += label(kLeft + i * kCell, kTop + size + 18, "middle", thousands(map.lengths_tokens[at]));
  }
  return svg + label(kLeft + size / 2, kTop + size + 38, "middle", "tokens of prefix") + "</svg>\n";
}

}  // namespace kvfathom::cli
