// --mtp: a model that drafts by its own prediction block, against logs of llama-server.
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/cli/run_cli.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

// Of the shape of Qwen3.6-27B and Qwen3.8-27B, which the logs are of.
const std::string kModel = "memory qwen3.5-27b --weights q4_k_m --engine llama.cpp --gpus 1 ";

Json ledger_of(const std::string& words) {
  const Ran ran = run_cli(words + " --json");
  EXPECT_EQ(ran.status, 0) << words << "\n" << ran.err;
  return Json::parse(ran.out).at("ledger");
}

/// A number of a line in MiB.
double mib(const Json& ledger,
           const std::string& device,
           const std::string& kind,
           const char* field = "bytes") {
  for (const Json& line : ledger) {
    if (line.at("device") == device && line.at("line") == kind) {
      return line.value(field, line.at("bytes").get<double>()) / (1 << 20);
    }
  }
  return 0.0;
}

/// The prediction block by hand, from the model's config: queries with their gates, keys, values,
/// output, three matrices of the feed-forward, and the matrix over token and features.
constexpr double kBlockValues =
    5120.0 * (2 * 24 * 256 + 2 * 4 * 256 + 24 * 256 + 3 * 17408) + 2.0 * 5120 * 5120;

struct Logged {
  const char* settings;
  int n_tokens;
  double cache_mib;
  double compute_mib;
  double state_mib;  ///< of the model, with the copies
};

class PredictionBlock : public ::testing::TestWithParam<Logged> {};

TEST_P(PredictionBlock, TakesWhatWasLogged) {
  const Logged& log = GetParam();
  const std::string words = kModel + log.settings;
  const Json without = ledger_of(words);
  const Json with = ledger_of(words + " --mtp " + std::to_string(log.n_tokens));
  EXPECT_NEAR(mib(without, "gpu0", "state") * (log.n_tokens + 1), log.state_mib, 0.01);
  const double rest = log.cache_mib + log.state_mib - mib(without, "gpu0", "state");
  // 4.5 to 6.6 bits a weight in this recipe
  const double low_weights = kBlockValues * 4.5 / 8 / (1 << 20);
  const double high_weights = kBlockValues * 6.6 / 8 / (1 << 20);
  EXPECT_LE(mib(with, "gpu0", "draft", "low_bytes"), rest + log.compute_mib + high_weights);
  EXPECT_GE(mib(with, "gpu0", "draft", "high_bytes"), rest + log.compute_mib + low_weights);
  const double weights_and_compute = mib(with, "gpu0", "draft") - rest;
  EXPECT_GT(weights_and_compute, low_weights + log.compute_mib);
  EXPECT_LT(weights_and_compute, high_weights + 1.2 * log.compute_mib);
  for (const char* kind : {"weights", "cache", "state", "compute", "runtime"}) {
    EXPECT_EQ(mib(with, "gpu0", kind), mib(without, "gpu0", kind)) << kind;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Logs,
    PredictionBlock,
    ::testing::Values(
        Logged{"--context 32768 --sequences 1", 3, 128.00, 130.02, 598.50},
        Logged{"--context 32768 --sequences 1 --ubatch-tokens 2048", 2, 128.00, 520.06, 448.88}));

// "RS buffer size": 1047.38 MiB where six tokens may be drafted, 448.88 where two may.
TEST(PredictionBlockOption, KeepsTheStateOnceMoreForEveryToken) {
  const std::string words = kModel + "--context 32768 --mtp ";
  EXPECT_NEAR(
      mib(ledger_of(words + "6"), "gpu0", "draft") - mib(ledger_of(words + "2"), "gpu0", "draft"),
      1047.38 - 448.88,
      0.01);
}

TEST(PredictionBlockOption, KeepsItsBuffersOnTheHostToo) {
  // logged: 52.02 MiB of compute buffer and 0.95 of logits
  EXPECT_NEAR(mib(ledger_of(kModel + "--context 32768 --mtp 3"), "host", "draft"), 52.97, 0.01);
}

// No log is known of these: by hand, from https://huggingface.co/zai-org/GLM-4.7-Flash, layer 47 of
// its config, with and without the copies of the tables that the loader takes if they are there.
TEST(PredictionBlockOption, TakesALayerAndItsCacheWhereNothingWasLogged) {
  const double attention = 2048.0 * 768 + 768.0 * 20 * 256 + 2048.0 * (512 + 64) +
                           512.0 * 20 * (192 + 256) + 20.0 * 256 * 2048;
  const double layer = attention + 65.0 * 3 * 2048 * 1536 + 2.0 * 2048 * 2048;
  const double tables = 2.0 * 154880 * 2048;
  const auto in_q8_0 = [](double values) { return values * 34 / 32 / (1 << 20); };
  const double cache = 32768.0 * (512 + 64) * 2 / (1 << 20);
  const std::string words = "memory glm-4.7-flash --weights q8_0 --gpus 1 --context 32768";
  const double buffer = mib(ledger_of(words), "gpu0", "compute");
  const Json with = ledger_of(words + " --mtp 2");
  EXPECT_GT(mib(with, "gpu0", "draft", "low_bytes"), in_q8_0(layer) + cache);
  EXPECT_LT(mib(with, "gpu0", "draft", "low_bytes"), in_q8_0(layer) + cache + buffer);
  EXPECT_GT(mib(with, "gpu0", "draft", "high_bytes"), in_q8_0(layer + tables) + cache + buffer);
  EXPECT_EQ(mib(with, "gpu0", "cache"), mib(ledger_of(words), "gpu0", "cache"));
}

TEST(PredictionBlockOption, GrowsByTheCacheOfOneLayerAndItsMask) {
  const auto growth = [](const std::string& model) {
    const std::string words = "memory " + model + " --weights q4_k_m --gpus 1 --mtp 1 --context ";
    return mib(ledger_of(words + "65536"), "gpu0", "draft") -
           mib(ledger_of(words + "32768"), "gpu0", "draft");
  };
  constexpr double kMask = 512.0 * 32768 * 2 / (1 << 20);  // of a micro-batch
  EXPECT_NEAR(growth("glm-4.7-flash"), 32768.0 * 576 * 2 / (1 << 20) + kMask, 0.01);
  EXPECT_NEAR(growth("glm-4.5-air"), 32768.0 * 2 * 8 * 128 * 2 / (1 << 20) + kMask, 0.01);
}

TEST(PredictionBlockOption, StandsInTheCommand) {
  const Ran ran = run_cli(kModel + "--context 8192 --mtp 2");
  EXPECT_NE(ran.out.find("--spec-type draft-mtp --spec-draft-n-max 2"), std::string::npos);
}

TEST(PredictionBlockOption, StandsInTheCommandsOfServingEngines) {
  const std::string words = "memory glm-4.7-flash --gpu h100-sxm --context 8192 --mtp 2 --engine ";
  const Ran vllm = run_cli(words + "vllm");
  EXPECT_NE(vllm.out.find(R"(--speculative-config '{"method":"mtp","num_speculative_tokens":2}')"),
            std::string::npos);
  const Ran sglang = run_cli(words + "sglang");
  EXPECT_NE(sglang.out.find("--speculative-algorithm NEXTN --speculative-num-steps 2 "
                            "--speculative-eagle-topk 1 --speculative-num-draft-tokens 3"),
            std::string::npos);
}

TEST(PredictionBlockOption, ShortensTheLongestContextOfAServingEngine) {
  const auto longest = [](const std::string& words) {
    const Ran ran = run_cli("fit glm-4.7-flash --gpu h100-sxm --json " + words);
    return Json::parse(ran.out).at("answers").at(0).at("max_context_tokens").get<std::int64_t>();
  };
  for (const std::string engine : {"vllm", "sglang"}) {
    EXPECT_LT(longest("--engine " + engine + " --mtp 1"), longest("--engine " + engine));
  }
}

TEST(PredictionBlockOption, HasAColumnBesideTheOtherEngines) {
  const std::string words = "fit qwen3.5-35b-a3b --gpu h200-sxm --engine all ";
  const auto titles = [](const std::string& arguments) {
    const std::string out = run_cli(arguments).out;
    const std::size_t at = out.find("GiB, at most");
    return at == std::string::npos ? std::string() : out.substr(at, out.find('\n', at) - at);
  };
  EXPECT_EQ(titles(words + "--width 100").find("draft"), std::string::npos);
  const std::string wide = titles(words + "--mtp 2 --width 100");
  const std::string narrow = titles(words + "--mtp 2 --width 80");
  EXPECT_NE(wide.find(" draft "), std::string::npos) << wide;
  EXPECT_NE(wide.find(" state "), std::string::npos) << wide;
  EXPECT_NE(narrow.find(" draft "), std::string::npos) << narrow;
  EXPECT_EQ(narrow.find(" state "), std::string::npos) << narrow;  // the smallest
  EXPECT_LE(narrow.size() + 2, 80U);
}

TEST(PredictionBlockOption, RefusesWhatNoRuleIsKnownFor) {
  const auto refusal = [](const std::string& words) {
    const Ran ran = run_cli(words);
    return std::pair(ran.status, ran.err);
  };
  EXPECT_EQ(refusal("memory qwen3-8b --weights q8_0 --gpus 1 --context 8 --mtp 2"),
            std::pair(2,
                      std::string("kvfathom: --mtp: Qwen3-8B has no prediction blocks; leave it "
                                  "out\n")));
  EXPECT_EQ(refusal("memory mimo-7b-base --weights q8_0 --gpus 1 --context 8 --mtp 2").first, 3);
  const std::string air = "memory glm-4.5-air --weights q8_0 --gpus 1 --context 8 --mtp 2";
  EXPECT_EQ(refusal(air + " --engine-version b10602").first, 3);  // before pull request 26534
  EXPECT_EQ(refusal(air + " --engine-version b10603").first, 0);
  EXPECT_EQ(refusal(kModel + "--context 8 --mtp 2 --engine-version b10602").first, 0);
  EXPECT_EQ(refusal(kModel + "--context 8 --mtp 2 --engine-version b10586").first, 3);
  EXPECT_EQ(refusal(kModel + "--context 8 --gpu-layers 3 --mtp 2").first, 3);
  EXPECT_EQ(refusal(kModel + "--context 8 --mtp 2 --draft qwen3.5-9b").first, 2);
  const std::string served = "memory qwen3.5-27b --gpu h100-sxm --context 8 --mtp 2 --engine ";
  EXPECT_NE(run_cli(served + "sglang").out.find(" --max-mamba-cache-size 5 "), std::string::npos);
  EXPECT_EQ(refusal(served + "tensorrt-llm").first, 3);
  EXPECT_EQ(refusal(served + "vllm --engine-version 0.14.0").first, 3);
}

}  // namespace
}  // namespace kvfathom::testing
