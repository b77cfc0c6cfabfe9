// Pages for people: every command shown with its output is run and prints what the page says.
#include <sstream>

#include "tests/cli/run_cli.h"

namespace kvfathom::testing {
namespace {

struct Shown {
  std::string words;               ///< behind "$ kvfathom "
  std::vector<std::string> lines;  ///< in this order; "..." stands for what is left out
};

std::vector<Shown> shown_commands(const char* file) {
  constexpr std::string_view kPrompt = "$ kvfathom ";
  std::istringstream page(read_all(std::filesystem::path(KVFATHOM_SOURCE_DIR) / file));
  std::vector<Shown> commands;
  bool in_block = false;
  bool is_output = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("```")) {
      in_block = !in_block;
      is_output = false;
    } else if (in_block && line.starts_with(kPrompt)) {
      commands.push_back({line.substr(kPrompt.size()), {}});
      is_output = true;
    } else if (is_output && line != "...") {
      commands.back().lines.push_back(line);
    }
  }
  return commands;
}

struct Page {
  const char* file;
  int width;  ///< of the terminal that its outputs are from
  std::size_t n_commands;
};

class Pages : public ::testing::TestWithParam<Page> {};

TEST_P(Pages, EachCommandPrintsWhatThePageSays) {
  const std::vector<Shown> commands = shown_commands(GetParam().file);
  EXPECT_GE(commands.size(), GetParam().n_commands);
  for (const Shown& command : commands) {
    const Ran ran = run_cli(command.words, GetParam().width);
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

INSTANTIATE_TEST_SUITE_P(Claims,
                         Pages,
                         ::testing::Values(Page{"docs/claims.md", 100, 9},
                                           Page{"README.md", 80, 2}),
                         [](const auto& page) {
                           return std::string(page.index == 0 ? "Claims" : "Readme");
                         });

}  // namespace
}  // namespace kvfathom::testing
