// kvfathom crossover: what its document says, and that it hangs together.
#include <cmath>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

Json crossover(const std::string& words) {
  return json_of("crossover " + words);
}

double time_of(const Json& one, const std::string& arm) {
  for (const Json& row : one.at("arms")) {
    if (row.at("arm") == arm) {
      return row.at("time_s").at("value");
    }
  }
  throw std::runtime_error("no arm " + arm);
}

// At the crossover bandwidth both arms take as long.
TEST(CrossoverCommand, ArmsAreEvenAtTheCrossoverBandwidth) {
  const std::string words = "llama-3.1-8b --gpu h100-sxm --engine ideal --context 8192 --tier ";
  const Json found = crossover(words + "network --bandwidth 10GB/s").at("cases").at(0);
  const double rate = found.at("crossover_bandwidth_bytes_per_s");
  const Json even =
      crossover(words + "network --bandwidth " + std::to_string(std::llround(rate)) + "B/s")
          .at("cases")
          .at(0);
  const double fetch = even.at("fetch_s").at("value");
  // What lands is written to memory as it comes, one layer of which is not hidden.
  EXPECT_NEAR(fetch, even.at("recompute_s").at("value"), 0.01 * fetch);
}

// On either side of the crossover length the other arm wins.
TEST(CrossoverCommand, TheWinnerChangesAtTheCrossoverLength) {
  const std::string words =
      "llama-3.1-8b --gpu h100-sxm --engine ideal --tier network --bandwidth 3GB/s --context ";
  const Json found = crossover(words + "1000").at("cases").at(0);
  ASSERT_GE(found.at("reigns").size(), 2U);
  const std::int64_t from = found.at("crossover_tokens");
  for (const std::int64_t tokens : {from - 1, from}) {
    const Json at = crossover(words + std::to_string(tokens)).at("cases").at(0);
    const bool fetch_wins = time_of(at, "native") <= time_of(at, "recompute");
    EXPECT_EQ(fetch_wins, tokens == from) << tokens;
  }
  EXPECT_LE(found.at("crossover_tokens_low"), from);
}

// A mix is never slower than the better of what it mixes.
TEST(CrossoverCommand, MixesAreNoSlowerThanTheirParts) {
  for (const char* model : {"llama-3.1-8b", "llama-2-7b-hf", "gemma-3-4b-it", "glm-4.7-flash"}) {
    const Json document =
        crossover(std::string(model) + " --gpu rtx-4090 --engine ideal --context 4096");
    for (const Json& one : document.at("cases")) {
      const double fetch = time_of(one, "native");
      const double best = std::min(fetch, time_of(one, "recompute"));
      EXPECT_LE(time_of(one, "split-tokens"), best * 1.001) << model;
      for (const Json& row : one.at("arms")) {
        if (row.at("arm") == "split-layers" || row.at("arm") == "partial-recompute") {
          EXPECT_LE(row.at("time_s").at("value"), fetch * 1.001) << model;
        }
      }
    }
  }
}

TEST(CrossoverCommand, LoadMovesTheCrossover) {
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

TEST(CrossoverCommand, AMapHoldsTenThousandCells) {
  const Json map = crossover("llama-3.1-8b --gpu h100-sxm --engine ideal --map").at("map");
  EXPECT_EQ(map.at("recompute_over_fetch").size(), 10'000U);
  // Rows run from the fastest link down: fetching never gains.
  const std::size_t n = map.at("lengths_tokens").size();
  for (std::size_t i = n; i < map.at("recompute_over_fetch").size(); ++i) {
    EXPECT_LE(map.at("recompute_over_fetch").at(i), map.at("recompute_over_fetch").at(i - n));
  }
}

// One row of a batch map is one prefix, whose times are those of the case itself. Short prefixes
// share the reading of the weights, so that recomputing gains; long ones do not.
TEST(CrossoverCommand, ShortPrefixesAreRecomputedTogether) {
  const std::string line =
      "llama-3.1-8b --gpu h100-sxm --engine ideal --context 131072 --batch-map";
  const Json document = crossover(line);
  const Json& map = document.at("batch_map");
  const std::size_t n = map.at("lengths_tokens").size();
  const std::size_t n_rows = map.at("batches").size();
  ASSERT_EQ(map.at("recompute_over_fetch").size(), n * n_rows);
  const auto ratio = [&](std::size_t row, std::size_t column) {
    return map.at("recompute_over_fetch").at(row * n + column).get<double>();
  };
  EXPECT_EQ(map.at("batches").front(), 1);
  EXPECT_EQ(map.at("batches").back(), 512);
  const Json& whole = document.at("cases").at(0);
  EXPECT_NEAR(ratio(0, n - 1),
              whole.at("recompute_s").at("value").get<double>() /
                  whole.at("fetch_s").at("value").get<double>(),
              1e-9);
  for (std::size_t column = 0; column < n; ++column) {
    EXPECT_LE(ratio(n_rows - 1, column), 1.0000001 * ratio(0, column)) << column;
  }
  EXPECT_LT(ratio(n_rows - 1, 0), 0.1 * ratio(0, 0));                  // one token each
  EXPECT_NEAR(ratio(n_rows - 1, n - 1) / ratio(0, n - 1), 1.0, 1e-9);  // 131,072 each
}

TEST(CrossoverCommand, WritesItsMapsAsPictures) {
  const fs::path file = fs::temp_directory_path() / "kvfathom_crossover_test.svg";
  const auto picture = [&](const std::string& options) {
    const Ran ran = run_cli("crossover llama-3.1-8b --gpu h100-sxm --engine ideal" + options +
                            " --svg " + file.string());
    EXPECT_EQ(ran.status, 0) << ran.err;
    const std::string svg = read_all(file);
    fs::remove(file);
    EXPECT_TRUE(svg.starts_with("<svg "));
    EXPECT_TRUE(svg.ends_with("</svg>\n"));
    EXPECT_NE(svg.find("Llama-3.1-8B on NVIDIA H100"), std::string::npos);
    return svg;
  };
  EXPECT_NE(picture("").find("1,000 GB/s"), std::string::npos);
  EXPECT_NE(picture(" --batch-map").find("512 at once"), std::string::npos);
}

TEST(CrossoverCommand, SharedMemoryHasNoHostTier) {
  const Json document = crossover("llama-3.1-8b --gpu m4-max-40-core --engine ideal");
  for (const Json& one : document.at("cases")) {
    EXPECT_NE(one.at("tier"), "host");
  }
}

TEST(CrossoverCommand, RefusesWhatItCannotAnswer) {
  EXPECT_EQ(run_cli("crossover llama-3.1-8b").status, 2);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --gpu h100-sxm --tier tape").status, 2);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --gpu h100-sxm --bandwidth 2GB/s").status, 2);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --gpu h100-sxm --load 1.5").status, 2);
  EXPECT_EQ(run_cli("crossover llama-3.1-8b --gpu h100-sxm --engine ideal --svg /no/such/place.svg")
                .status,
            4);
}

}  // namespace
}  // namespace kvfathom::testing
