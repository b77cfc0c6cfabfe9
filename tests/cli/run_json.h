// Runs a command with --json and holds what it prints to its schema.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/cli/json_schema.h"
#include "tests/cli/run_cli.h"

namespace kvfathom::testing {

/// "fit": data/schemas/fit.schema.json.
inline nlohmann::json schema_named(const std::string& name) {
  return nlohmann::json::parse(read_all(std::filesystem::path(KVFATHOM_SOURCE_DIR) /
                                        "data/schemas" / (name + ".schema.json")));
}

/// The document of `words`. Its schema is the command's, or that of an error, unless it is named.
inline nlohmann::json json_of(const std::string& words, int status = 0, std::string schema = "") {
  const Ran ran = run_cli(words + " --json");
  const bool refused = status > 1;
  EXPECT_EQ(ran.status, status) << words << "\n" << ran.err;
  EXPECT_EQ(ran.err.empty(), !refused) << words << "\n" << ran.err;
  nlohmann::json document = nlohmann::json::parse(ran.out);
  if (schema.empty()) {
    schema = refused ? "error" : words.substr(0, words.find(' '));
  }
  EXPECT_EQ(schema_faults(document, schema_named(schema)), std::vector<std::string>{}) << words;
  return document;
}

}  // namespace kvfathom::testing
