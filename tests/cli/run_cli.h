// Runs the program in-process, as a user would see it at a given width.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cli/app.h"

namespace kvfathom::testing {

struct Ran {
  int status = 0;
  std::string out;
  std::string err;
};

/// `words` as after `kvfathom`, split at spaces.
inline Ran run_cli(const std::string& words, int width = 80) {
  std::vector<std::string> arguments;
  for (std::size_t at = 0; at < words.size();) {
    const std::size_t end = std::min(words.find(' ', at), words.size());
    if (end > at) {
      arguments.push_back(words.substr(at, end - at));
    }
    at = end + 1;
  }
  cli::Console console;
  console.terminal.width = width;
  const int status = cli::run(arguments, console);
  return {status, console.out, console.err};
}

inline std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Compares with tests/cli/golden/<name>. KVFATHOM_UPDATE_GOLDEN=1 in the environment writes it
/// instead, for a person to read in the diff.
inline void expect_golden(const std::string& text, const std::string& name) {
  const std::filesystem::path path =
      std::filesystem::path(KVFATHOM_SOURCE_DIR) / "tests/cli/golden" / name;
  if (std::getenv("KVFATHOM_UPDATE_GOLDEN") != nullptr) {
    std::filesystem::create_directories(path.parent_path());
    const std::filesystem::path temporary = path.string() + ".new";
    std::ofstream(temporary, std::ios::binary) << text;
    std::filesystem::rename(temporary, path);
  }
  ASSERT_TRUE(std::filesystem::is_regular_file(path)) << path;
  EXPECT_EQ(text, read_all(path)) << path;
}

}  // namespace kvfathom::testing
