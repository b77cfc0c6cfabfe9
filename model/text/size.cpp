#include "model/text/size.h"

#include <array>
#include <cctype>
#include <cstdio>
#include <limits>
#include <optional>
#include <utility>

#include "model/error.h"

namespace kvfathom {
namespace {

constexpr std::string_view kSizeHelp =
    "a number and B, kB, MB, GB, TB (1000s) or KiB, MiB, GiB, TiB (1024s; K, M, G, T mean these)";
constexpr std::string_view kBandwidthHelp =
    "a number and MB/s, GB/s, TB/s (1000s) or GiB/s (1024s)";

[[noreturn]] void refuse(std::string_view where,
                         std::string_view text,
                         std::string_view why,
                         std::string_view allowed) {
  throw InputError(std::string(where),
                   "\"" + std::string(text) + "\" " + std::string(why),
                   std::string(allowed));
}

char lower(char c) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') {
    text.remove_prefix(1);
  }
  while (!text.empty() && text.back() == ' ') {
    text.remove_suffix(1);
  }
  return text;
}

/// How many bytes a unit stands for; nothing for an unknown unit.
std::optional<std::int64_t> unit_bytes(std::string_view unit) {
  std::string name;
  for (const char c : unit) {
    name += lower(c);
  }
  if (name.empty() || name == "b") {
    return 1;
  }
  const std::size_t power = std::string_view("kmgtp").find(name.front());
  const std::string_view rest = std::string_view(name).substr(1);
  if (power == std::string_view::npos || !(rest.empty() || rest == "b" || rest == "ib")) {
    return std::nullopt;
  }
  std::int64_t bytes = 1;
  for (std::size_t i = 0; i <= power; ++i) {
    bytes *= rest == "b" ? 1000 : 1024;
  }
  return bytes;
}

/// number * unit in integers, so that no size is off by a rounding of binary fractions: whole part
/// exactly, then digit by digit of the fraction, floor(unit * digits / 10^n). Nothing on overflow.
std::optional<std::int64_t> scaled(std::string_view whole,
                                   std::string_view fraction,
                                   std::int64_t unit) {
  std::int64_t bytes = 0;
  for (const char digit : whole) {
    if (__builtin_mul_overflow(bytes, 10, &bytes) ||
        __builtin_add_overflow(bytes, digit - '0', &bytes)) {
      return std::nullopt;
    }
  }
  if (__builtin_mul_overflow(bytes, unit, &bytes)) {
    return std::nullopt;
  }
  // From the last digit to the first: each step divides by ten what the later digits gave. With
  // unit <= 2^50 the sum stays below 10 * 2^50. Flooring each step is flooring once, because
  // floor((a + floor(x)) / 10) = floor((a + x) / 10) for a whole a.
  std::int64_t part = 0;
  while (!fraction.empty()) {
    part = (unit * (fraction.back() - '0') + part) / 10;
    fraction.remove_suffix(1);
  }
  if (__builtin_add_overflow(bytes, part, &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

std::int64_t parse(std::string_view text,
                   std::string_view where,
                   std::string_view shown,
                   std::string_view allowed) {
  std::size_t end = 0;
  while (end < text.size() && is_digit(text[end])) {
    ++end;
  }
  const std::string_view whole = text.substr(0, end);
  std::string_view fraction;
  if (end < text.size() && text[end] == '.') {
    const std::size_t first = ++end;
    while (end < text.size() && is_digit(text[end])) {
      ++end;
    }
    fraction = text.substr(first, end - first);
  }
  if (whole.empty() && fraction.empty()) {
    refuse(where, shown, "does not start with a number", allowed);
  }
  const std::optional<std::int64_t> unit = unit_bytes(trimmed(text.substr(end)));
  if (!unit) {
    refuse(where, shown, "has no unit known here", allowed);
  }
  const std::optional<std::int64_t> bytes = scaled(whole, fraction, *unit);
  if (!bytes) {
    refuse(where, shown, "is too large", "less than 8 EiB");
  }
  return *bytes;
}

}  // namespace

std::int64_t parse_size(std::string_view text, std::string_view where) {
  return parse(trimmed(text), where, text, kSizeHelp);
}

BytesPerSecond parse_bandwidth(std::string_view text, std::string_view where) {
  std::string_view number = trimmed(text);
  // "/s" only: "ps" would read "Gbps", which is bits everywhere else, as bytes.
  const bool per_second =
      number.size() > 2 && lower(number.back()) == 's' && number[number.size() - 2] == '/';
  if (!per_second) {
    refuse(where, text, "is no bandwidth", kBandwidthHelp);
  }
  number.remove_suffix(2);
  // NOLINTNEXTLINE(readability-suspicious-call-argument): the number of the text, then the text
  return BytesPerSecond(static_cast<double>(parse(number, where, text, kBandwidthHelp)));
}

std::string human_size(std::int64_t bytes) {
  constexpr std::array<const char*, 6> kUnits{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  // Through unsigned, because -INT64_MIN has no int64.
  const bool negative = bytes < 0;
  const std::uint64_t size =
      negative ? 0 - static_cast<std::uint64_t>(bytes) : static_cast<std::uint64_t>(bytes);
  const std::string sign = negative ? "-" : "";
  if (size < 1024) {
    return sign + std::to_string(size) + " B";
  }
  double value = static_cast<double>(size) / 1024;
  std::size_t unit = 0;
  // 1023.5 would print as 1024: the next unit shows it better.
  while (value >= 1023.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  const int decimals = value < 9.995 ? 2 : (value < 99.95 ? 1 : 0);
  (void)std::snprintf(text.data(), text.size(), "%.*f %s", decimals, value, kUnits.at(unit));
  return sign + text.data();
}

}  // namespace kvfathom
