// kvfathom crossover on a machine that does something else besides.
#include <cmath>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

Json crossover(const std::string& words) {
  return json_of("crossover " + words);
}

double time_of(const Json& ways, const std::string& name) {
  for (const Json& row : ways.at("arms")) {
    if (row.at("name") == name) {
      return row.at("time_s").at("value");
    }
  }
  throw std::runtime_error("no way " + name);
}

TEST(CrossoverLoad, MovesTheCrossover) {
  const Json one =
      crossover(
          "llama-3.1-8b --gpu h100-sxm --engine ideal --tier network --bandwidth 3GB/s "
          "--queued 10GiB")
          .at("cases")
          .at(0);
  // A short prefix is fetched sooner than the weights are read, but not behind 10 GiB of others.
  EXPECT_EQ(one.at("reigns").front().at("winner"), "fetch");
  EXPECT_EQ(one.at("reigns_loaded").front().at("winner"), "recompute");
}

// Of the device's compute: the recompute takes ten times as long, the fetch as long as before.
TEST(CrossoverLoad, OfComputeIsNotOfTheLink) {
  const Json one =
      crossover("llama-3.1-8b --gpu h100-sxm --tier nvme --load 0.9").at("cases").at(0);
  const Json& loaded = one.at("loaded");
  const double fetch = one.at("fetch_s").at("value");
  const double recompute = one.at("recompute_s").at("value");
  EXPECT_DOUBLE_EQ(loaded.at("fetch_s").at("value"), fetch);
  EXPECT_NEAR(loaded.at("recompute_s").at("value"), 10.0 * recompute, 1e-6 * recompute);
  // Idle, recomputing wins from 737 to 11,264 tokens; not where it has a tenth of the device.
  EXPECT_EQ(one.at("reigns").size(), 3U);
  EXPECT_EQ(one.at("reigns_loaded").size(), 1U);
  EXPECT_EQ(one.at("crossover_tokens"), one.at("reigns").at(2).at("from_tokens"));
  EXPECT_EQ(loaded.at("crossover_tokens"), 1);
  // 4 GiB in what 2048 calls of 100 us leave of it.
  const double rate = 32768.0 * 131072.0 / (10.0 * recompute - 0.2048);
  EXPECT_NEAR(loaded.at("crossover_bandwidth_bytes_per_s").get<double>(), rate, 0.01 * rate);
  EXPECT_TRUE(crossover("llama-3.1-8b --gpu h100-sxm --tier nvme")
                  .at("cases")
                  .at(0)
                  .at("loaded")
                  .is_null());
}

TEST(CrossoverLoad, ASharedLinkMovesTheCrossoverTheOtherWay) {
  const std::string words =
      "llama-3.1-8b --gpu h100-sxm --tier nvme --context 8192 --link-load 0.5";
  const Json one = crossover(words).at("cases").at(0);
  EXPECT_NEAR(one.at("loaded").at("fetch_s").at("value"),
              2.0 * one.at("fetch_s").at("value").get<double>(),
              0.01 * one.at("fetch_s").at("value").get<double>());
  EXPECT_EQ(one.at("loaded").at("recompute_s"), one.at("recompute_s"));
  EXPECT_GT(one.at("loaded").at("crossover_tokens"), one.at("crossover_tokens"));
}

// 64 sequences of 8192 tokens: each step of the recompute reads their K and V, 64 GiB of
// Llama-3.1-8B or 20.5 ms at the H100's 3.35 TB/s, besides its own chunk.
TEST(CrossoverLoad, RunningSequencesSlowTheRecompute) {
  const Json document =
      crossover("llama-3.1-8b --gpu h100-sxm --tier nvme --context 8192 --running 64");
  const Json& one = document.at("cases").at(0);
  const double idle = one.at("recompute_s").at("value");
  const double beside = one.at("loaded").at("recompute_s").at("value");
  const double reads_s = 64.0 * 8192.0 * 131072.0 / 3.35e12;
  EXPECT_GT(beside, idle + reads_s);  // two steps: 64 of the 8192 tokens of a step are theirs
  EXPECT_LT(beside, idle + 4.0 * reads_s);
  EXPECT_EQ(one.at("loaded").at("fetch_s"), one.at("fetch_s"));
  EXPECT_NE(one.at("reigns_loaded"), one.at("reigns"));
  EXPECT_EQ(document.at("running").at("sequences"), 64);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --gpu rtx-4090 --weights q4_k_m --running 600").status,
            2);  // llama.cpp's steps have 512 tokens
}

// With half of the compute taken, what is computed takes twice as long, what is only fetched as
// long as before, and of a prefix that comes from both ends more is fetched.
TEST(CrossoverLoad, SlowsEachWayByWhatItComputes) {
  const Json one = crossover(
                       "llama-2-7b-hf --gpu h100-sxm --engine ideal --tier network --bandwidth "
                       "20GB/s --context 4096 --load 0.5")
                       .at("cases")
                       .at(0);
  const Json& loaded = one.at("loaded");
  EXPECT_DOUBLE_EQ(time_of(loaded, "fetch K and V, f16"), time_of(one, "fetch K and V, f16"));
  EXPECT_NEAR(time_of(loaded, "recompute") / time_of(one, "recompute"), 2.0, 1e-9);
  EXPECT_NEAR(time_of(loaded, "recompute, SnapKV") / time_of(one, "recompute, SnapKV"), 2.0, 1e-9);
  const double project = time_of(loaded, "fetch X, project") / time_of(one, "fetch X, project");
  EXPECT_GT(project, 1.0);
  EXPECT_LT(project, 2.0);
  EXPECT_GT(loaded.at("best_split").at("fetched_tokens"),
            one.at("best_split").at("fetched_tokens"));
  EXPECT_GT(loaded.at("best_split").at("time_s"), one.at("best_split").at("time_s"));
}

// Two fetches of 1 GiB behind 10 GiB of others wait for these once: 12 GiB, not 22.
TEST(CrossoverLoad, WhatIsQueuedGoesBeforeTheFirstOfSeveralPrefixes) {
  const Json document = crossover(
      "llama-3.1-8b --gpu h100-sxm --engine ideal --tier network --bandwidth 10GB/s "
      "--context 8192 --queued 10GiB --batch-map");
  const Json& idle = document.at("batch_map");
  const Json& loaded = document.at("batch_map_loaded");
  const auto& lengths = idle.at("lengths_tokens");
  std::size_t column = 0;
  while (lengths.at(column) < 8192) {
    ++column;
  }
  const double own = lengths.at(column).get<double>() * 131072.0;
  const double others = 10.0 * 1073741824.0;
  for (const std::size_t row : {0U, 1U, 2U}) {  // 1, 2, 4 prefixes
    const std::size_t cell = row * lengths.size() + column;
    const double slower = idle.at("recompute_over_fetch").at(cell).get<double>() /
                          loaded.at("recompute_over_fetch").at(cell).get<double>();
    const double n = std::pow(2.0, static_cast<double>(row));
    EXPECT_NEAR(slower, (n * own + others) / (n * own), 0.02 * slower) << n;
  }
}

// A step of 700 tokens has room for as many prompts as its running sequences leave: with 450 of
// them for two of a hundred and a few tokens, so that four take two such steps; with 250, one.
TEST(CrossoverLoad, RunningSequencesLeaveRoomForFewerPrefixesAtOnce) {
  const std::string words =
      "llama-3.1-8b --gpu h100-sxm --tier host --bandwidth 10GB/s --context 100 "
      "--max-batched-tokens 700 --batch-map --running ";
  const auto ratio = [&](const std::string& running, std::size_t row) {
    const Json map = crossover(words + running).at("batch_map_loaded");
    std::size_t column = 0;
    while (map.at("lengths_tokens").at(column) < 100) {
      ++column;
    }
    EXPECT_LE(map.at("lengths_tokens").at(column), 110);
    return map.at("recompute_over_fetch")
        .at(row * map.at("lengths_tokens").size() + column)
        .get<double>();
  };
  const double two = ratio("450", 1);
  const double four = ratio("450", 2);
  const double four_in_one_step = ratio("250", 2);
  EXPECT_NEAR(four / two, 1.0, 0.01);  // twice the steps, twice what is fetched
  EXPECT_LT(four_in_one_step, 0.7 * four);
}

}  // namespace
}  // namespace kvfathom::testing
