#include "cli/format.h"

#include <array>
#include <cmath>
#include <cstdio>

namespace kvfathom::cli {
namespace {

std::string fixed(double value, int decimals) {
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.*f", decimals, value);
  return buffer.data();
}

}  // namespace

std::string thousands(std::int64_t n) {
  std::string digits = std::to_string(n);
  const std::size_t first = n < 0 ? 1 : 0;
  for (std::size_t at = digits.size(); at > first + 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

std::string gib_number(std::int64_t bytes) {
  const double value = static_cast<double>(bytes) / (1024.0 * 1024.0 * 1024.0);
  const double size = std::fabs(value);
  constexpr double kSmallest = 0.00005;
  if (size > 0.0 && size < kSmallest) {
    return value < 0.0 ? "-<0.0001" : "<0.0001";
  }
  const int decimals = size == 0.0 || size >= 0.0995 ? 2 : size >= 0.00995 ? 3 : 4;
  return fixed(value, decimals);
}

std::string gib(std::int64_t bytes) {
  return gib_number(bytes) + " GiB";
}

std::string parameters(std::int64_t n) {
  const auto value = static_cast<double>(n);
  if (n >= 1'000'000'000'000) {
    return fixed(value / 1e12, 2) + " T";
  }
  if (n >= 1'000'000'000) {
    return fixed(value / 1e9, n >= 100'000'000'000 ? 0 : 1) + " B";
  }
  return n >= 1'000'000 ? fixed(value / 1e6, 0) + " M" : thousands(n);
}

int display_width(std::string_view text) {
  int cells = 0;
  for (const char c : text) {
    cells += (static_cast<unsigned char>(c) & 0xC0U) == 0x80U ? 0 : 1;
  }
  return cells;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return result;
}

std::string wrap(std::string_view text, int width, int indent) {
  std::string result;
  int column = indent;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t space = text.find(' ', at);
    const std::string_view word = text.substr(at, space - at);
    const int cells = display_width(word);
    if (column > indent && column + 1 + cells > width) {
      result += "\n" + std::string(static_cast<std::size_t>(indent), ' ');
      column = indent;
    } else if (at > 0) {
      result += ' ';
      ++column;
    }
    result += word;
    column += cells;
    at = space == std::string_view::npos ? text.size() : space + 1;
  }
  return result;
}

std::string shell_word(std::string_view word) {
  constexpr std::string_view kHarmless =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
  if (!word.empty() && word.find_first_not_of(kHarmless) == std::string_view::npos) {
    return std::string(word);
  }
  std::string quoted = "'";
  for (const char c : word) {
    quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return quoted + "'";
}

std::string printable(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    const auto code = static_cast<unsigned char>(c);
    c = code < 0x20 || code == 0x7F ? '?' : c;
  }
  return result;
}

std::string rounded(double value) {
  if (value >= 100.0) {
    return thousands(std::llround(value));
  }
  constexpr double kLeast = 0.0005;
  if (value > 0.0 && value < kLeast) {
    return "<0.001";
  }
  std::array<char, 32> text{};
  const int decimals = value >= 10.0 ? 1 : value >= 1.0 ? 2 : 3;
  std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
  return text.data();
}

std::string counted(std::int64_t n, std::string_view noun) {
  return thousands(n).append(" ").append(noun).append(n == 1 ? "" : "s");
}

std::string duration(double seconds) {
  constexpr double kMinute = 60.0;
  constexpr double kHour = 60.0 * kMinute;
  constexpr double kDay = 24.0 * kHour;
  if (seconds < 1e-3) {
    return rounded(seconds * 1e6) + " us";
  }
  if (seconds < 1.0) {
    return rounded(seconds * 1e3) + " ms";
  }
  if (seconds < 2.0 * kMinute) {
    return rounded(seconds) + " s";
  }
  if (seconds < 2.0 * kHour) {
    return rounded(seconds / kMinute) + " min";
  }
  return seconds < 2.0 * kDay ? rounded(seconds / kHour) + " h" : rounded(seconds / kDay) + " days";
}

std::string interval(double low, double high) {
  return rounded(low) + " - " + rounded(high);
}

std::string duration_interval(double low_s, double high_s) {
  const std::string low = duration(low_s);
  const std::string high = duration(high_s);
  const std::size_t unit = low.find(' ');
  const bool same_unit = low.substr(unit) == high.substr(high.find(' '));
  return (same_unit ? low.substr(0, unit) : low) + " - " + high;
}

}  // namespace kvfathom::cli
