// kvfathom crossover: its sentences, and its maps in characters and as pictures.
#include <algorithm>
#include <cmath>

#include "cli/crossover.h"
#include "cli/headline.h"
#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

Json crossover(const std::string& words) {
  return json_of("crossover " + words);
}

TEST(CrossoverShown, AMapHoldsTenThousandCells) {
  const Json map = crossover("llama-3.1-8b --gpu h100-sxm --engine ideal --map").at("map");
  // Short lengths come once: 1, 2, 3 and not 1, 1, 1, 2.
  const auto lengths = map.at("lengths_tokens").get<std::vector<std::int64_t>>();
  EXPECT_TRUE(std::ranges::is_sorted(lengths));
  EXPECT_EQ(std::ranges::adjacent_find(lengths), lengths.end());
  EXPECT_EQ(lengths.back(), 131072);
  EXPECT_EQ(map.at("recompute_over_fetch").size(), 10'000U);
  // Rows run from the fastest link down: fetching never gains.
  const std::size_t n = map.at("lengths_tokens").size();
  for (std::size_t i = n; i < map.at("recompute_over_fetch").size(); ++i) {
    EXPECT_LE(map.at("recompute_over_fetch").at(i), map.at("recompute_over_fetch").at(i - n));
  }
}

// One row of a batch map is one prefix, whose times are those of the case itself. Short prefixes
// share the reading of the weights, so that recomputing gains; long ones do not.
TEST(CrossoverShown, ShortPrefixesAreRecomputedTogether) {
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

TEST(CrossoverShown, WritesItsMapsAsPictures) {
  const fs::path file = fs::temp_directory_path() / "kvfathom_crossover_test.svg";
  const auto picture = [&](const std::string& options) {
    const Ran ran = run_cli("crossover llama-3.1-8b --gpu h100-sxm --engine ideal" + options +
                            " --svg " + file.string());
    EXPECT_EQ(ran.status, 0) << ran.err;
    EXPECT_NE(ran.out.find("Wrote the map to " + file.string()), std::string::npos);
    std::string svg = read_all(file);
    fs::remove(file);
    EXPECT_TRUE(svg.starts_with("<svg "));
    EXPECT_TRUE(svg.ends_with("</svg>\n"));
    EXPECT_NE(svg.find("Llama-3.1-8B on NVIDIA H100"), std::string::npos);
    return svg;
  };
  const std::string idle = picture("");
  EXPECT_NE(idle.find("1,000 GB/s"), std::string::npos);
  EXPECT_NE(idle.find("from host"), std::string::npos);
  EXPECT_NE(picture(" --load 0.9").find("under the load"), std::string::npos);
  EXPECT_NE(picture(" --batch-map").find("512 at once"), std::string::npos);
}

TEST(CrossoverShown, BothTheIdleAndTheLoadedAnswerAreShown) {
  const Ran ran = run_cli("crossover llama-3.1-8b --gpu h100-sxm --tier nvme --load 0.9 --map");
  EXPECT_NE(ran.out.find("Under the load fetching wins at every length"), std::string::npos);
  EXPECT_NE(ran.out.find("under load"), std::string::npos);
  EXPECT_NE(ran.out.find("The same under the load:"), std::string::npos);
  const Json document = crossover("llama-3.1-8b --gpu h100-sxm --tier nvme --load 0.9 --map");
  EXPECT_NE(document.at("map"), document.at("map_loaded"));
}

TEST(PaysText, NamesEverySpan) {
  EXPECT_EQ(cli::pays_text({}), "never");
  EXPECT_EQ(cli::pays_text({{1, std::nullopt}}), "always");
  EXPECT_EQ(cli::pays_text({{1142, std::nullopt}}), "from 1,142");
  EXPECT_EQ(cli::pays_text({{1, 20}, {30, 40}, {50, std::nullopt}}), "up to 20, 30-40, from 50");
}

cli::Contest contest(const std::vector<Reign>& reigns) {
  return {.fetch_s = {.value = 0.1, .low = 0.1, .high = 0.1},
          .recompute_s = {.value = 0.2, .low = 0.2, .high = 0.2},
          .reigns = reigns,
          .crossover_low =
              reigns.back().fetch ? std::optional(reigns.back().from_tokens) : std::nullopt,
          .crossover_high =
              reigns.back().fetch ? std::optional(reigns.back().from_tokens) : std::nullopt};
}

TEST(CrossoverSentence, SaysEverySpan) {
  const auto says = [](const std::vector<Reign>& reigns) {
    const std::string text = cli::contest_sentence(contest(reigns), 100, 1000);
    return text.substr(0, text.find(':'));
  };
  EXPECT_EQ(says({{1, true}}), "fetching wins at every length up to 1,000 tokens");
  EXPECT_EQ(says({{1, false}, {90, true}}), "fetching wins from 90 tokens on, recomputing before");
  EXPECT_EQ(says({{1, true}, {20, false}, {90, true}}),
            "fetching wins from 90 tokens on and below 20, recomputing in between");
  EXPECT_EQ(says({{1, true}, {20, false}, {40, true}, {50, false}, {90, true}}),
            "fetching wins from 90 tokens on, below 20, from 40 to 49; recomputing else");
  EXPECT_EQ(says({{1, true}, {20, false}, {90, true}, {95, false}}),
            "recomputing wins from 95 tokens on, from 20 to 89; fetching else");
  EXPECT_EQ(says({{1, false}, {20, true}, {30, false}, {40, true}, {50, false}, {90, true}}),
            "fetching wins from 90 tokens on, now and then between 20 and 49; recomputing else");
}

TEST(CrossoverSentence, SaysHowFarOffTheLengthMayBe) {
  cli::Contest one = contest({{1, false}, {90, true}});
  one.crossover_low = 1;
  one.crossover_high = 700;
  EXPECT_TRUE(cli::contest_sentence(one, 100, 1000)
                  .starts_with("fetching wins from 90 tokens on (between 1 and 700 with the "
                               "intervals of both sides), recomputing before"));
  one.crossover_high.reset();
  EXPECT_NE(cli::contest_sentence(one, 100, 1000).find("from 1, or not at all"), std::string::npos);
}

// Chunks of 2048 tokens leave a span of their own below the last: 6,145 and some.
TEST(CrossoverShown, TheSentenceAgreesWithTheTable) {
  const Json one = crossover("qwen3-0.6b --gpu rtx-4090 --tier nvme").at("cases").at(0);
  const Json& reigns = one.at("reigns");
  ASSERT_GT(reigns.size(), 3U);
  const std::string sentence = one.at("sentence");
  EXPECT_EQ(sentence.find("in between:"), std::string::npos) << sentence;
  EXPECT_NE(sentence.find("; recomputing else"), std::string::npos) << sentence;
}

}  // namespace
}  // namespace kvfathom::testing
