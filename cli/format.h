// Numbers as people read them: GiB with two decimals, counts with thousands separators.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvfathom::cli {

/// "1,234,567".
[[nodiscard]] std::string thousands(std::int64_t n);

/// "16.43 GiB"; small sizes get up to four decimals ("0.0013 GiB"). Always GiB.
[[nodiscard]] std::string gib(std::int64_t bytes);

/// The number of gib() alone, "16.43".
[[nodiscard]] std::string gib_number(std::int64_t bytes);

/// "29.9 B", "494 M": parameter counts.
[[nodiscard]] std::string parameters(std::int64_t n);

/// Three digits that count: "0.123", "12.3", "1,234".
[[nodiscard]] std::string rounded(double value);

/// "1 token", "1,234 tokens".
[[nodiscard]] std::string counted(std::int64_t n, std::string_view noun);

/// "850 us", "12.3 ms", "1.24 s", "3.10 min", "5.20 h", "11.6 days".
[[nodiscard]] std::string duration(double seconds);

/// Both ends of an interval: "59.4 - 148", and of durations "18.2 - 32.4 ms", "686 ms - 1.74 s".
[[nodiscard]] std::string interval(double low, double high);
[[nodiscard]] std::string duration_interval(double low_s, double high_s);

/// What a terminal cell grid shows of UTF-8 text: bytes that do not continue a character.
/// Right for the characters that kvfathom itself prints, none of which is wide or combining.
[[nodiscard]] int display_width(std::string_view text);

/// Lower-case ASCII.
[[nodiscard]] std::string lower(std::string_view text);

/// Breaks text at spaces so that no line exceeds `width` when the first is printed behind `indent`
/// spaces; later lines begin with these.
[[nodiscard]] std::string wrap(std::string_view text, int width, int indent);

/// A word as a POSIX shell needs it: unchanged if harmless, else in single quotes.
[[nodiscard]] std::string shell_word(std::string_view word);

/// Replaces control characters by '?', so that a file's strings cannot drive the terminal.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace kvfathom::cli
