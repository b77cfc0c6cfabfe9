// Parameter counts computed from real configs against the counts their makers publish.
#include <cmath>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "model/architecture/parameters.h"
#include "model/error.h"
#include "model/io/hf_config.h"

namespace kvfathom {
namespace {

const std::string kConfigs = std::string(KVFATHOM_SOURCE_DIR) + "/tests/data/configs/";

std::string read_all(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::vector<std::string>> published_rows() {
  std::ifstream file(kConfigs + "published_parameters.tsv");
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) {
      continue;
    }
    std::vector<std::string> columns;
    std::stringstream stream(line);
    for (std::string column; std::getline(stream, column, '\t');) {
      columns.push_back(column);
    }
    rows.push_back(columns);
  }
  return rows;
}

/// The config, with what its trimmed copy lacks filled in where the row says so.
ModelSpec model_of_row(const std::vector<std::string>& row) {
  std::string text = read_all(kConfigs + row.at(0));
  if (row.at(4) != "-") {
    nlohmann::json config = nlohmann::json::parse(text);
    config.merge_patch(nlohmann::json::parse(row.at(4)));
    text = config.dump();
  }
  return read_hf_config_text(text, row.at(0));
}

/// What the published figure counts: the row's basis says which parts, and whether a checkpoint
/// stores its tied head twice.
double on_basis(const ModelSpec& model, const std::string& basis) {
  const ParameterCount n = count_parameters(model);
  double count = static_cast<double>(n.total);
  if (basis.find("+mtp") != std::string::npos) {
    count += static_cast<double>(n.mtp);
  }
  if (basis.find("+vision") != std::string::npos) {
    count += static_cast<double>(n.vision);
  }
  if (basis.find("+audio") != std::string::npos) {
    count += static_cast<double>(n.audio);
  }
  if (basis == "tied head stored twice") {
    count += static_cast<double>(model.hidden_size * model.vocab_size);
  }
  return count / 1e9;
}

TEST(PublishedParameters, MostAreWithinHalfAPercent) {
  int within_half = 0;
  int within_three = 0;
  for (const auto& row : published_rows()) {
    const double published = std::stod(row.at(1));
    try {
      const double got = on_basis(model_of_row(row), row.at(3));
      const double off = got / published - 1.0;
      within_half += std::abs(off) <= 0.005 ? 1 : 0;
      within_three += std::abs(off) <= 0.03 ? 1 : 0;
      if (std::abs(off) > 0.005) {
        std::cout << row.at(0) << ": " << got << " against " << published << " (" << off * 100
                  << " %, " << row.at(3) << ", " << row.at(5) << ")\n";
      }
    } catch (const Error& e) {
      std::cout << "refused: " << e.what() << "\n";
    }
  }
  std::cout << within_half << " within 0.5 %, " << within_three << " within 3 %\n";
  EXPECT_GE(within_half, 135);
  EXPECT_GE(within_three, 145);
}

}  // namespace
}  // namespace kvfathom
