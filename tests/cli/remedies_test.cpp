// What `memory` and `fit` say would do, done: each remedy must fit, and be no larger than it must.
#include <cstdint>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

/// The remedies, each on one line.
std::vector<std::string> remedies(const std::string& words) {
  const Ran ran = run_cli(words, 400);
  EXPECT_EQ(ran.status, 1) << words << "\n" << ran.err;
  std::vector<std::string> lines;
  std::istringstream text(ran.out);
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("  - ")) {
      lines.push_back(line.substr(4));
    }
  }
  return lines;
}

/// What `pattern` captures in each remedy that it is in.
std::vector<std::string> captured(const std::vector<std::string>& lines,
                                  const std::string& pattern) {
  std::vector<std::string> found;
  const std::regex regex(pattern);
  for (const std::string& line : lines) {
    std::smatch match;
    if (std::regex_search(line, match, regex)) {
      for (std::size_t i = 1; i < match.size(); ++i) {
        found.push_back(match[i].str());
      }
    }
  }
  return found;
}

std::string smaller_by_a_percent(const std::string& gib) {
  return std::to_string(std::stod(gib) * 0.99) + "GiB";
}

// The search for a shorter one goes no lower than a token for each sequence, which llama.cpp needs.
TEST(Remedies, AShorterContextOfAllSequencesFitsAndOneTokenMoreDoesNot) {
  const std::string words =
      "memory llama-3.1-8b --gpu rtx-4090 --engine llama.cpp --weights q8_0 --sequences 4 "
      "--total-context ";
  const auto tokens = captured(remedies(words + "131072"), "^a context of at most ([0-9,]+) token");
  ASSERT_EQ(tokens.size(), 1U);
  std::string total = tokens[0];
  std::erase(total, ',');
  EXPECT_EQ(run_cli(words + total).status, 0);
  EXPECT_EQ(run_cli(words + std::to_string(std::stoll(total) + 1)).status, 1);
  EXPECT_TRUE(captured(remedies("memory llama-3.1-70b --gpu rtx-4090 --engine llama.cpp --weights "
                                "q4_k_m --sequences 4 --total-context 65536"),
                       "^(a context of at most)")
                  .empty());
}

class EngineWithAShare : public ::testing::TestWithParam<const char*> {};

TEST_P(EngineWithAShare, ADeviceOfTheSizeThatItNamesFitsAndOneAPercentSmallerDoesNot) {
  const std::string words =
      std::string("memory llama-3.1-70b --context 32768 --engine ") + GetParam();
  const auto sizes = captured(remedies(words + " --gpu h100"), "^a device of ([0-9.]+) GiB");
  ASSERT_EQ(sizes.size(), 1U);
  EXPECT_EQ(run_cli(words + " --memory " + sizes[0] + "GiB").status, 0);
  EXPECT_EQ(run_cli(words + " --memory " + smaller_by_a_percent(sizes[0])).status, 1);
}

TEST_P(EngineWithAShare, OffersTheFewestRanksThatHoldIt) {
  const std::string words =
      std::string("memory llama-3.1-70b --context 32768 --gpu h100 --engine ") + GetParam();
  const auto ranks = captured(remedies(words), "^([0-9]+) such GPUs \\(--tensor-parallel ");
  ASSERT_EQ(ranks.size(), 1U);
  EXPECT_EQ(run_cli(words + " --tensor-parallel " + ranks[0]).status, 0);
  for (int fewer = 1; fewer < std::stoi(ranks[0]); ++fewer) {
    EXPECT_NE(run_cli(words + " --tensor-parallel " + std::to_string(fewer)).status, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Remedies,
                         EngineWithAShare,
                         ::testing::Values("vllm", "sglang", "tensorrt-llm"),
                         [](const auto& one) {
                           std::string name = one.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(Remedies, EqualDevicesAreToldOnce) {
  const std::string words =
      "memory llama-3.1-405b --engine vllm --tensor-parallel 8 "
      "--context 131072";
  const auto lines = remedies(words + " --gpu h100");
  const auto sizes = captured(lines, "^8 devices of ([0-9.]+) GiB each");
  ASSERT_EQ(sizes.size(), 1U);
  EXPECT_TRUE(captured(lines, "(a device of)").empty());
  EXPECT_EQ(run_cli(words + " --gpus 8 --memory " + sizes[0] + "GiB").status, 0);
  EXPECT_EQ(run_cli(words + " --gpus 8 --memory " + smaller_by_a_percent(sizes[0])).status, 1);
}

/// A copy of the RTX 4090's description, of another size.
std::string device_of(const std::string& name, double gib) {
  Json gpu = Json::parse(read_all(fs::path(KVFATHOM_SOURCE_DIR) / "data/hardware/rtx-4090.json"));
  gpu["id"] = "kvfathom-remedies-" + name;
  gpu["memory_bytes"] = static_cast<std::int64_t>(gib * (1 << 30));
  const fs::path path = fs::temp_directory_path() / (gpu["id"].get<std::string>() + ".json");
  std::ofstream(path) << gpu.dump();
  return path.string();
}

TEST(Remedies, UnevenDevicesAreNamedAndGrowTogether) {
  const std::string words = "memory llama-3.3-70b-instruct --weights q4_k_m --context 32768 --gpu ";
  const auto sizes = captured(remedies(words + "rtx-4090,rtx-3090"),
                              "^gpu0 of ([0-9.]+) GiB, .* together with gpu1 of ([0-9.]+) GiB, ");
  ASSERT_EQ(sizes.size(), 2U);
  const double first = std::stod(sizes[0]);
  const double second = std::stod(sizes[1]);
  const auto status = [&](double a, double b) {
    return run_cli(words + device_of("first", a) + "," + device_of("second", b)).status;
  };
  EXPECT_EQ(status(first + 0.001, second + 0.001), 0);
  EXPECT_EQ(status(first, 24.0), 1);
  EXPECT_EQ(status(23.99, second), 1);
}

TEST(Remedies, AHostIsNoDevice) {
  const std::string words = "fit qwen3-30b-a3b --gpu rtx-4070 --weights q4_k_m --auto ";
  const auto lines = remedies(words + "--host-memory 2GiB");
  const auto sizes = captured(lines, "^([0-9.]+) GiB of host memory, ");
  ASSERT_EQ(sizes.size(), 1U);
  EXPECT_TRUE(captured(lines, "(a device of)").empty());
  EXPECT_EQ(run_cli(words + "--host-memory " + sizes[0] + "GiB").status, 0);
}

TEST(Remedies, LlamaCppSplitsLayersOverMoreGpus) {
  const std::string words =
      "memory llama-3.3-70b-instruct --engine llama.cpp --weights q4_k_m --context 8192 "
      "--gpu rtx-4090";
  const auto gpus = captured(remedies(words), "^([0-9]+) such GPUs \\(--gpus ");
  ASSERT_EQ(gpus.size(), 1U);
  EXPECT_EQ(run_cli(words + " --gpus " + gpus[0]).status, 0);
  EXPECT_EQ(run_cli(words + " --gpus " + std::to_string(std::stoi(gpus[0]) - 1)).status, 1);
}

TEST(Remedies, TheSmallerStepsOfASmallerDevice) {
  // vLLM takes larger steps from 70 GiB on: what fits in 69.9 GiB need not fit in 70.
  const std::string words = "memory glm-4.7-flash --engine vllm --context 40000 --memory ";
  EXPECT_EQ(run_cli(words + "69.9GiB").status, 0);
  const auto options = captured(remedies(words + "70GiB"), "^smaller steps \\(([^)]*)\\): from 70");
  ASSERT_EQ(options.size(), 1U);
  EXPECT_EQ(run_cli(words + "70GiB " + options[0]).status, 0);
}

}  // namespace
}  // namespace kvfathom::testing
