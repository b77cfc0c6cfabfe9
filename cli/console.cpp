#include "cli/console.h"

#include <algorithm>
#include <cstdlib>

#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/format.h"

namespace kvfathom::cli {
namespace {

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view{} : std::string_view(value);
}

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (const std::string value = lower(environment(name)); !value.empty()) {
      return value.find("utf-8") != std::string::npos || value.find("utf8") != std::string::npos;
    }
  }
  return false;
}

std::string_view code(Style style) {
  switch (style) {
    case Style::bold:
      return "\x1b[1m";
    case Style::dim:
      return "\x1b[2m";
    case Style::good:
      return "\x1b[32m";
    case Style::bad:
      return "\x1b[31m";
    case Style::accent:
      return "\x1b[36m";
    case Style::plain:
      break;
  }
  return "";
}

}  // namespace

Terminal detect_terminal() {
  constexpr int kWidest = 100;
  Terminal terminal;
  terminal.utf8 = locale_is_utf8();
  if (isatty(STDOUT_FILENO) == 1) {
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
      terminal.width = std::min<int>(size.ws_col, kWidest);
    }
    terminal.colour = environment("NO_COLOR").empty() && environment("TERM") != "dumb";
  }
  return terminal;
}

void Console::paragraph(std::string_view text, int indent) {
  const std::string margin(static_cast<std::size_t>(indent), ' ');
  line(margin + wrap(text, terminal.width, indent));
}

std::string Console::styled(std::string_view text, Style style) const {
  if (!terminal.colour || style == Style::plain) {
    return std::string(text);
  }
  return std::string(code(style)) + std::string(text) + "\x1b[0m";
}

}  // namespace kvfathom::cli
