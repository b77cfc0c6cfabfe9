// docs/claims.md: every command in it is run and prints what the page says.
#include <sstream>

#include "tests/cli/run_cli.h"

namespace kvfathom::testing {
namespace {

struct Shown {
  std::string words;               ///< behind "$ kvfathom "
  std::vector<std::string> lines;  ///< in this order; "..." stands for what is left out
};

std::vector<Shown> shown_commands() {
  constexpr std::string_view kPrompt = "$ kvfathom ";
  std::istringstream page(
      read_all(std::filesystem::path(KVFATHOM_SOURCE_DIR) / "docs" / "claims.md"));
  std::vector<Shown> commands;
  bool in_block = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("```")) {
      in_block = !in_block;
    } else if (in_block && line.starts_with(kPrompt)) {
      commands.push_back({line.substr(kPrompt.size()), {}});
    } else if (in_block && line != "...") {
      EXPECT_FALSE(commands.empty()) << line;
      commands.back().lines.push_back(line);
    }
  }
  return commands;
}

TEST(Claims, EachCommandPrintsWhatThePageSays) {
  const std::vector<Shown> commands = shown_commands();
  EXPECT_GE(commands.size(), 9U);
  for (const Shown& command : commands) {
    const Ran ran = run_cli(command.words, 100);
    EXPECT_FALSE(command.lines.empty()) << command.words;
    std::istringstream printed(ran.out + ran.err);
    std::size_t found = 0;
    for (std::string line; found < command.lines.size() && std::getline(printed, line);) {
      found += line == command.lines[found] ? 1 : 0;
    }
    EXPECT_EQ(found, command.lines.size())
        << command.words << "\n"
        << (found < command.lines.size() ? "not printed: " + command.lines[found] : "") << "\n"
        << ran.out << ran.err;
  }
}

}  // namespace
}  // namespace kvfathom::testing
