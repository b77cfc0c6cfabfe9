// fit --with-speed: what `speed` says of each answer, and why where it says nothing.
#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

const Json& point(const Json& document,
                  const std::string& phase,
                  std::int64_t context,
                  std::int64_t batch) {
  for (const Json& one : document.at("points")) {
    if (one.at("phase") == phase && one.at("context_tokens") == context &&
        one.at("batch") == batch) {
      return one;
    }
  }
  throw std::runtime_error("no such point");
}

TEST(FitWithSpeed, SaysWhatSpeedSaysOfEachAnswer) {
  const std::string words = "llama-3.1-8b --gpu rtx-3060 --weights q4_k_m";
  const Json answers = json_of("fit " + words + " --with-speed").at("answers");
  ASSERT_EQ(answers.size(), 3U);
  for (const Json& answer : answers) {
    const std::int64_t context = answer.at("max_context_tokens");
    const std::string type = answer.at("scheme").at("cache_type_k");
    std::string of_answer = "speed " + words;
    of_answer += " --cache-type-k " + type;
    of_answer += " --cache-type-v " + type;
    of_answer += " --context " + std::to_string(context);
    const Json document = json_of(of_answer);
    const Json& decode = point(document, "decode", context, 1);
    const Json& prefill = point(document, "prefill", context, 1);
    const Json& speed = answer.at("speed");
    EXPECT_EQ(speed.at("decode_tokens_per_s"), decode.at("tokens_per_s")) << type;
    EXPECT_EQ(speed.at("bound_by"), decode.at("bound_by")) << type;
    EXPECT_EQ(speed.at("ttft_s"), prefill.at("time_s")) << type;
    EXPECT_EQ(speed.at("prefill_tokens_per_s"), prefill.at("tokens_per_s")) << type;
    EXPECT_FALSE(answer.contains("speed_refused"));
  }
}

TEST(FitWithSpeed, CountsTheTokensOfAllSequences) {
  const std::string words = "llama-3.1-8b --gpu h100-sxm --context 8192";
  const Json answer = json_of("fit " + words + " --users --with-speed").at("answers").at(0);
  const std::int64_t users = answer.at("sequences");
  ASSERT_GT(users, 1);
  const Json document = json_of("speed " + words + " --sequences " + std::to_string(users));
  EXPECT_EQ(answer.at("speed").at("decode_tokens_per_s"),
            point(document, "decode", 8192, users).at("tokens_per_s"));
  const std::string text = run_cli("fit " + words + " --users --with-speed").out;
  EXPECT_NE(text.find("of all sequences together"), std::string::npos) << text;
}

TEST(FitWithSpeed, EveryEngineHasItsOwn) {
  const std::string words = "fit qwen3-8b --gpu h100-sxm --with-speed --engine ";
  const Json all = json_of(words + "all");
  ASSERT_GE(all.at("answers").size(), 5U);
  for (const Json& answer : all.at("answers")) {
    const std::string engine = answer.at("engine").at("name");
    EXPECT_EQ(answer, json_of(words + engine).at("answers").at(0));
    // Of Transformers' own loop nothing is known.
    EXPECT_EQ(answer.at("speed").is_object(), engine != "huggingface") << engine;
  }
}

TEST(FitWithSpeed, IsNotThereUnasked) {
  const Json document = json_of("fit llama-3.1-8b --gpu h100-sxm");
  EXPECT_FALSE(document.at("answers").at(0).contains("speed"));
}

/// Every answer stands without its speed, and says why it has none.
void expect_refused(const std::string& words, const std::string& reason) {
  const Json answers = json_of("fit " + words + " --with-speed").at("answers");
  for (const Json& answer : answers) {
    EXPECT_GT(answer.at("max_context_tokens"), 0) << words;
    EXPECT_TRUE(answer.at("speed").is_null()) << words;
    EXPECT_NE(answer.at("speed_refused").get<std::string>().find(reason), std::string::npos)
        << answer.at("speed_refused");
  }
  const std::string text = run_cli("fit " + words + " --with-speed", 400).out;
  EXPECT_NE(text.find("No speed: "), std::string::npos) << text;
  EXPECT_NE(text.find(reason), std::string::npos) << text;
}

TEST(FitWithSpeed, ARefusedSpeedIsNoRefusedAnswer) {
  expect_refused("qwen3-32b --gpu rtx-3090 --weights q4_k_m --draft qwen3-0.6b",
                 "how many drafted tokens are accepted is not known");
  expect_refused("glm-4.5-air --gpu h100-sxm --tensor-parallel 4 --mtp 2",
                 "how many drafted tokens are accepted is not known");
  expect_refused("llama-3.1-8b --gpu h100-sxm --lora-rank 16", "the products of adapters");
  expect_refused("llama-3.1-8b --memory 24GiB --engine ideal", "--bandwidth");
}

TEST(FitWithSpeed, WhatDoesNotFitHasNone) {
  const Json document = json_of("fit glm-4.7-flash --gpu rtx-4090 --engine ideal --with-speed", 1);
  for (const Json& answer : document.at("answers")) {
    EXPECT_TRUE(answer.at("speed").is_null());
    EXPECT_FALSE(answer.contains("speed_refused"));
  }
}

TEST(FitWithSpeed, WithoutAPeakRatePromptsHaveNoTime) {
  const std::string words =
      "fit llama-3.1-8b --memory 40GiB --bandwidth 500GB/s --engine ideal --with-speed";
  const Json speed = json_of(words).at("answers").at(0).at("speed");
  EXPECT_FALSE(speed.contains("ttft_s"));
  EXPECT_FALSE(speed.contains("prefill_tokens_per_s"));
  // 16.06 GB of weights, less an embedding of 1.05 GB, and 17.18 GB of cache at most at 500 GB/s.
  EXPECT_LT(speed.at("decode_tokens_per_s").at("value"), 500e9 / (15.01e9 + 17.18e9));
  EXPECT_NE(run_cli(words, 400).out.find("prompts have no time"), std::string::npos);
}

TEST(FitWithSpeed, OptionsThatNeedOneAnother) {
  const std::string words = "fit llama-3.1-8b --gpu rtx-4090 ";
  EXPECT_EQ(json_of(words + "--calibration none", 2).at("where"), "--calibration");
  EXPECT_EQ(json_of(words + "--host-bandwidth 80GB/s", 2).at("where"), "--host-bandwidth");
  EXPECT_EQ(json_of("fit llama-3.1-8b --smallest-gpu --context 8 --with-speed", 2).at("found"),
            "given together with --smallest-gpu");
  EXPECT_EQ(json_of(words + "--best-quant --context 8 --with-speed", 2).at("found"),
            "given together with --best-quant");
}

}  // namespace
}  // namespace kvfathom::testing
