// Where a command writes: text gathered in memory and written once, so that a cold start pays for
// no stream machinery and tests read what a user would see.
#pragma once

#include <string>
#include <string_view>

namespace kvfathom::cli {

/// What is known about the place that stdout goes to.
struct Terminal {
  int width = 80;       ///< columns that a table may take
  bool colour = false;  ///< ANSI colours wanted
  bool utf8 = true;     ///< block characters print
};

/// Of this process: window size if stdout is a terminal (else 80, at most 100), NO_COLOR, locale.
[[nodiscard]] Terminal detect_terminal();

enum class Style { plain, bold, dim, good, bad, accent };

/// What a command says, and how loudly.
struct Console {
  Terminal terminal;
  bool json = false;   ///< machine output: no prose on stdout
  bool quiet = false;  ///< the answer only, no notes
  std::string out;
  std::string err;

  void line(std::string_view text = "") {
    out += text;
    out += '\n';
  }
  /// Prose, broken to the terminal's width.
  void paragraph(std::string_view text, int indent = 0);
  [[nodiscard]] std::string styled(std::string_view text, Style style) const;
};

}  // namespace kvfathom::cli
