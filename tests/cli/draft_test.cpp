// A draft model beside a model: llama.cpp plans each as it would alone, in one process.
#include <string>
#include <utility>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

const std::string kModel = "qwen3-32b --weights q4_k_m --engine llama.cpp --gpus 1 ";
const std::string kDraft = "qwen3-0.6b ";

std::int64_t line(const Json& document, const std::string& device, const std::string& kind) {
  for (const Json& one : document.at("ledger")) {
    if (one.at("device") == device && one.at("line") == kind) {
      return one.at("bytes").get<std::int64_t>();
    }
  }
  return 0;
}

std::int64_t total_but_runtime(const Json& document, const std::string& device) {
  std::int64_t sum = 0;
  for (const Json& one : document.at("ledger")) {
    const bool counts = one.at("device") == device && one.at("line") != "runtime";
    sum += counts ? one.at("bytes").get<std::int64_t>() : 0;
  }
  return sum;
}

TEST(Draft, ItsLineIsWhatLlamaCppPlansForItAlone) {
  const std::string settings = " --context 32768 --sequences 2 --cache-type-k q8_0";
  const Json both = json_of("memory " + kModel + settings +
                            " --draft qwen3-0.6b --draft-weights q8_0 --cache-type-v q8_0");
  const Json model = json_of("memory " + kModel + settings + " --cache-type-v q8_0");
  // its cache is f16 whatever the model's is
  const Json draft = json_of("memory " + kDraft +
                             "--weights q8_0 --engine llama.cpp --gpus 1 --context 32768 "
                             "--sequences 2");
  for (const std::string device : {"gpu0", "host"}) {
    EXPECT_EQ(line(both, device, "draft"), total_but_runtime(draft, device));
    EXPECT_EQ(total_but_runtime(both, device),
              total_but_runtime(model, device) + total_but_runtime(draft, device));
  }
  EXPECT_EQ(line(both, "gpu0", "runtime"), line(model, "gpu0", "runtime"));
  // By hand: 28 layers x 8 KV heads x 128 values x K and V x 2 bytes (Qwen3-0.6B's config).
  EXPECT_EQ(line(draft, "gpu0", "cache"), std::int64_t{28} * 8 * 128 * 2 * 2 * 32768 * 2);
}

TEST(Draft, TheCommandLoadsIt) {
  const Json both = json_of("memory " + kModel +
                            "--context 4096 --draft qwen3-0.6b --draft-weights q8_0 "
                            "--draft-gpu-layers 5 --draft-cache-type-k q8_0 "
                            "--draft-cache-type-v q8_0");
  const auto command = both.at("command").get<std::string>();
  EXPECT_NE(command.find(" -md qwen3-0.6b-q8_0.gguf -ngld 5 -ctkd q8_0 -ctvd q8_0"),
            std::string::npos)
      << command;
}

TEST(Draft, TheLongestContextFitsAndTheNextDoesNot) {
  const std::string words = kModel + "--memory 24GiB --draft qwen3-0.6b --draft-weights q8_0 ";
  const Json alone = json_of("fit " + kModel + "--memory 24GiB");
  const Json with = json_of("fit " + words);
  const auto longest = [](const Json& document) {
    return document.at("answers").at(0).at("max_context_tokens").get<std::int64_t>();
  };
  EXPECT_LT(longest(with), longest(alone));
  EXPECT_TRUE(json_of("memory " + words + "--context " + std::to_string(longest(with))).at("fits"));
  EXPECT_FALSE(
      json_of("memory " + words + "--context " + std::to_string(longest(with) + 1), 1).at("fits"));
}

TEST(Draft, WhatHasNoRuleIsRefusedByName) {
  const auto refusal = [](const std::string& words) {
    const Ran ran = run_cli("memory " + words + " --context 4096");
    return std::pair{ran.status, ran.err};
  };
  const auto [other, why_other] = refusal(kModel + "--draft llama-3.1-8b --draft-weights q8_0");
  EXPECT_EQ(other, 2);
  EXPECT_NE(why_other.find("128256 tokens beside the model's 151936"), std::string::npos)
      << why_other;
  const auto [hybrid, why_hybrid] =
      refusal("qwen3-next-80b-a3b-thinking --weights q4_k_m --engine llama.cpp --draft qwen3-0.6b");
  EXPECT_EQ(hybrid, 3);
  EXPECT_NE(why_hybrid.find("recurrent state"), std::string::npos) << why_hybrid;
  const auto [serving, why_serving] = refusal("qwen3-32b --engine sglang --draft qwen3-0.6b");
  EXPECT_EQ(serving, 3);
  EXPECT_NE(why_serving.find("no rule for a draft model"), std::string::npos) << why_serving;
  EXPECT_EQ(refusal(kModel + "--draft qwen3-0.6b --draft-cache-type-k fp8").first, 2);
  EXPECT_EQ(refusal(kModel + "--draft-weights q8_0").first, 2);
  EXPECT_EQ(refusal(kModel + "--draft qwen3-0.6b --engine-version b9000").first, 3);
  const std::string served = "qwen3-32b --engine vllm --gpu h200 --draft ";
  EXPECT_EQ(refusal(served + "llama-3.2-1b-instruct").first, 2);  // another vocabulary
  EXPECT_EQ(refusal(served + "qwen3-0.6b --draft-cache-type-k fp8").first, 3);
  EXPECT_EQ(refusal(served + "qwen3-0.6b --draft-weights q8_0").first, 3);
  EXPECT_EQ(refusal(served + "qwen3-0.6b --pipeline-parallel 2").first, 3);
  EXPECT_EQ(refusal(served + "qwen3-0.6b --engine-version 0.13.0").first, 3);
  EXPECT_EQ(refusal("gpt-oss-120b --engine vllm --gpu h200 --draft gpt-oss-20b").first, 3);
}

// vLLM has one pool for both models' layers, on the same ranks.
TEST(DraftInVllm, IsOneMoreModelOnEachRankAndMoreOfEachBlock) {
  const std::string words =
      "memory qwen3-32b --engine vllm --gpu h200 --context 32768 --sequences 2";
  const Json both = json_of(words + " --tensor-parallel 2 --draft qwen3-0.6b");
  // Qwen3-0.6B by its config: 596,049,920 parameters, of which 28 x (2 x 1024 + 2 x 128) + 1024
  // are norms, which every rank has.
  const std::int64_t norms = 28 * (2 * 1024 + 2 * 128) + 1024;
  const std::int64_t parameters = 596'049'920;
  for (const std::string rank : {"gpu0", "gpu1"}) {
    EXPECT_EQ(line(both, rank, "draft"), 2 * (norms + (parameters - norms) / 2));
    EXPECT_EQ(line(both, rank, "cache"),
              std::int64_t{2} * 32768 * (64 + 28) * 4 * 128 * 2 * 2);  // 4 of 8 heads each
  }
  EXPECT_NE(both.at("command").get<std::string>().find(
                R"(--speculative-config '{"method":"draft_model","model":"Qwen/Qwen3-0.6B",)"
                R"("num_speculative_tokens":5}')"),
            std::string::npos);
}

TEST(DraftInVllm, TakesRoomFromTheContext) {
  const std::string words = "fit qwen3-32b --engine vllm --gpu l40s --weights fp8 ";
  const auto longest = [](const Json& document) {
    return document.at("answers").at(0).at("max_context_tokens").get<std::int64_t>();
  };
  EXPECT_LT(longest(json_of(words + "--draft qwen3-0.6b")), longest(json_of(words)));
}

}  // namespace
}  // namespace kvfathom::testing
