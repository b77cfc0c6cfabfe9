// `fit --smallest-gpu` and `fit --best-quant`: each answer against `memory` on every candidate.
#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <sstream>

#include "cli/query.h"
#include "model/io/hardware_json.h"
#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

Json smallest(const std::string& words, int status = 0) {
  return json_of("fit " + words + " --smallest-gpu", status, "fit-smallest-gpu");
}

Json best_quant(const std::string& words, int status = 0) {
  return json_of("fit " + words + " --best-quant", status, "fit-best-quant");
}

/// Usable bytes, times count, of every machine on which `memory` says that `words` fits.
std::set<std::int64_t> sizes_that_fit(const std::string& words, int most_gpus) {
  std::set<std::int64_t> sizes;
  for (const auto& entry :
       fs::directory_iterator(fs::path(KVFATHOM_SOURCE_DIR) / "data/hardware")) {
    const Json gpu = Json::parse(read_all(entry.path()));
    const std::string kind = gpu.at("kind");
    for (int n = 1; n <= most_gpus && (kind == "gpu" || (kind == "apu" && n == 1)); n *= 2) {
      const Ran ran = run_cli("memory " + words + " --gpu " + entry.path().stem().string() +
                              " --gpus " + std::to_string(n) + " --json");
      if (ran.status == 0) {
        const std::int64_t memory = gpu.at("memory_bytes");
        sizes.insert(gpu.value("usable_memory_bytes", memory) * n);
      }
    }
  }
  return sizes;
}

TEST(SmallestGpu, IsTheLeastOfAllMachinesOnWhichMemorySaysThatItFits) {
  for (const std::string words : {"llama-3.1-8b --weights q4_k_m --context 32768",
                                  "llama-3.1-8b --engine ideal --context 131072",
                                  "glm-4.7-flash --weights q8_0 --context 8192 --sequences 2"}) {
    const Json found = smallest(words);
    const std::set<std::int64_t> sizes = sizes_that_fit(words, 8);
    ASSERT_FALSE(sizes.empty());
    EXPECT_EQ(found.at("smallest").at("usable_bytes"), *sizes.begin());
    EXPECT_EQ(found.at("smallest").at("fits"), true);
    EXPECT_LT(found.at("below").at("usable_bytes"), *sizes.begin());
    EXPECT_LT(found.at("below").at("headroom_bytes"), 0);
    EXPECT_EQ(found.at("by_count").size(), 4U);
    for (const Json& next : found.at("next")) {
      EXPECT_TRUE(sizes.contains(next.at("usable_bytes")));
    }
  }
}

TEST(SmallestGpu, OfAVendorAndAtMostSoMany) {
  const std::string words = "llama-3.1-8b --weights q4_k_m --context 32768 --vendor intel";
  const Json found = smallest(words + " --max-gpus 1");
  EXPECT_EQ(found.at("smallest").at("count"), 1);
  EXPECT_TRUE(found.at("smallest").at("name").get<std::string>().starts_with("Intel"));
  EXPECT_EQ(found.at("by_count").size(), 1U);
}

TEST(SmallestGpu, ServingEnginesCutTensorsOverTheirGpus) {
  const std::string words = "llama-3.3-70b-instruct --engine vllm --context 8192";
  const Json found = smallest(words);
  for (const Json& offer : found.at("by_count")) {
    const std::string n = std::to_string(offer.at("count").get<int>());
    const std::string machine = " --gpu " + offer.at("gpu").get<std::string>();
    const Json by_hand = json_of("memory " + words + machine + " --tensor-parallel " + n);
    EXPECT_EQ(by_hand.at("ledger"), offer.at("ledger"));
  }
  for (const Json& offer : found.at("next")) {
    EXPECT_FALSE(offer.at("name").get<std::string>().starts_with("Apple"));
  }
}

TEST(SmallestGpu, TriesTheDevicesThatTheEngineRunsOn) {
  const auto runs = [](const char* engine, const std::string& id) {
    const HardwareSpec device =
        read_hardware(std::string(KVFATHOM_SOURCE_DIR) + "/data/hardware/" + id + ".json");
    return cli::runs_on(engine_named(engine), device);
  };
  for (const std::string id : {"h100-sxm", "mi300x", "m4-max-40-core", "tpu-v5e"}) {
    EXPECT_TRUE(runs("ideal", id)) << id;
    EXPECT_EQ(runs("tensorrt-llm", id), id == "h100-sxm") << id;
    EXPECT_EQ(runs("vllm", id), id == "h100-sxm" || id == "mi300x") << id;
    EXPECT_EQ(runs("sglang", id), runs("vllm", id)) << id;
  }
  EXPECT_EQ(
      run_cli("fit llama-3.1-8b --smallest-gpu --context 8 --engine vllm --vendor apple").status,
      2);
}

TEST(SmallestGpu, WhatNothingHoldsIsStatusOneWithTheLargestAndItsLack) {
  const Json found = smallest("deepseek-v3 --engine llama.cpp --context 4096 --max-gpus 1", 1);
  EXPECT_EQ(found.at("smallest"), nullptr);
  EXPECT_LT(found.at("below").at("headroom_bytes"), 0);
}

TEST(SmallestGpu, RefusesWhatItLooksFor) {
  EXPECT_EQ(run_cli("fit llama-3.1-8b --smallest-gpu --context 8 --gpu rtx-4090").status, 2);
  EXPECT_EQ(run_cli("fit llama-3.1-8b --smallest-gpu").status, 2);
  EXPECT_EQ(run_cli("fit llama-3.1-8b --smallest-gpu --context 8 --vendor nobody").status, 2);
  EXPECT_EQ(run_cli("fit llama-3.1-8b --gpu rtx-4090 --vendor nvidia").status, 2);
}

double coarser_bits(const Json& answer) {
  return std::min(answer.at("weight_bits").get<double>(), answer.at("cache_bits").get<double>());
}

TEST(BestQuant, EveryPairIsWhatMemoryAndFitSay) {
  const std::string words = "llama-3.1-8b --engine llama.cpp --gpu rtx-4070";
  const Json found = best_quant(words + " --context 16384");
  ASSERT_EQ(found.at("answers").size(), 36U);  // 12 types of weights, 3 of the cache
  double finest = 0;
  for (const Json& one : found.at("answers")) {
    const std::string type = one.at("scheme").at("cache_type_k");
    const std::string by_hand = words + " --weights " + one.at("weights").get<std::string>() +
                                " --cache-type-k " + type + " --cache-type-v " + type;
    const bool fits = run_cli("memory " + by_hand + " --context 16384").status == 0;
    EXPECT_EQ(one.at("fits"), fits) << by_hand;
    const Json fit = Json::parse(run_cli("fit " + by_hand + " --json").out);
    EXPECT_EQ(fit.at("answers").at(0).at("max_context_tokens"), one.at("max_context_tokens"));
    if (fits) {
      finest = std::max(finest, coarser_bits(one));
    }
  }
  const Json& best = found.at("answers").at(found.at("best").get<std::size_t>());
  EXPECT_EQ(coarser_bits(best), finest);
  EXPECT_EQ(best.at("fits"), true);
}

TEST(BestQuant, BitsAreThePublishedOnes) {
  // llama.cpp, tools/quantize/README.md: bits per weight of Llama-3.1-8B.
  const Json found = best_quant("llama-3.1-8b --engine llama.cpp --gpu rtx-4090 --context 4096");
  const std::array<std::pair<const char*, double>, 4> published{
      {{"q8_0", 8.5008}, {"q6_k", 6.5633}, {"q5_k_m", 5.7036}, {"q4_k_m", 4.8944}}};
  for (const auto& [recipe, bits] : published) {
    const std::string weights = recipe;  // clang 14 captures no name of a structured binding
    const auto& answers = found.at("answers");
    const auto row = std::ranges::find_if(
        answers, [&](const Json& one) { return one.at("weights") == weights; });
    ASSERT_NE(row, answers.end());
    EXPECT_NEAR(row->at("weight_bits"), bits, 0.01) << weights;
    EXPECT_EQ(row->at("cache_bits"), 16.0);
  }
}

TEST(BestQuant, AGivenWeightTypeIsKept) {
  const Json found = best_quant("llama-3.1-8b --weights q4_k_m --gpu rtx-4070 --context 16384");
  ASSERT_EQ(found.at("answers").size(), 3U);
  EXPECT_EQ(found.at("answers").at(0).at("weights"), "q4_k_m");
}

TEST(BestQuant, ServingEnginesHaveTheirOwnFormats) {
  const Json found =
      best_quant("llama-3.3-70b-instruct --engine vllm --gpu h100-sxm --context 8192");
  const Json& best = found.at("answers").at(found.at("best").get<std::size_t>());
  EXPECT_LT(best.at("weight_bits"), 9);  // 70e9 weights of 16 bits do not fit in 80 GB
  EXPECT_EQ(best.at("fits"), true);
}

TEST(BestQuant, WhatNothingHoldsIsStatusOneAndSaysWhatLacksLeast) {
  const Json found = best_quant("llama-3.1-8b --engine llama.cpp --memory 1GiB --context 8192", 1);
  EXPECT_EQ(found.at("best"), nullptr);
  EXPECT_TRUE(found.at("unbeaten").empty());
  EXPECT_EQ(run_cli("fit llama-3.1-8b --best-quant --context 8").status, 2);
  EXPECT_EQ(run_cli("fit llama-3.1-8b --best-quant --gpu rtx-4090").status, 2);
}

TEST(Inverses, RefuseByNameWhatTheyCannotHonour) {
  const auto refusal = [](const std::string& words) {
    const Ran ran = run_cli("fit qwen3-30b-a3b --context 8192 " + words);
    EXPECT_EQ(ran.status, 2) << words;
    return ran.err;
  };
  EXPECT_EQ(refusal("--smallest-gpu --engine all"),
            "kvfathom: --engine: all, given together with --smallest-gpu; name one engine\n");
  EXPECT_EQ(refusal("--best-quant --gpu rtx-4090 --engine all"),
            "kvfathom: --engine: all, given together with --best-quant; name one engine\n");
  for (const std::string option : {"--auto", "--host-memory 64GiB", "--expert-parallel 2"}) {
    for (const std::string engine : {"llama.cpp", "vllm"}) {
      std::string words = "--smallest-gpu --engine ";
      words.append(engine).append(" ").append(option);
      EXPECT_EQ(refusal(words),
                "kvfathom: " + option.substr(0, option.find(' ')) +
                    ": given together with --smallest-gpu; leave one of them out\n");
    }
  }
  EXPECT_EQ(
      refusal("--smallest-gpu --engine ideal --scheme native --scheme kivi"),
      "kvfathom: --scheme: 2 schemes; name one; only fit without --smallest-gpu takes more\n");
}

TEST(BestQuant, LacksWhatItsLedgerSays) {
  const std::string words =
      "fit glm-4.7-flash --engine llama.cpp --best-quant --context 65536 --gpus 2 --memory 3GiB";
  const std::string text = run_cli(words, 100).out;
  const std::string sentence =
      Json::parse(run_cli(words + " --json").out).at("explanation").get<std::string>();
  std::size_t at = 0;
  for (const std::string device : {"gpu0", "gpu1"}) {
    at = text.find("\n  " + device, at);
    const std::size_t missing = text.find("missing", at);
    ASSERT_NE(missing, std::string::npos) << text;
    std::istringstream row(text.substr(missing));
    std::string label;
    std::string size;
    row >> label >> size;
    size.append(" GiB on ").append(device).append(", or at most ");
    EXPECT_NE(sentence.find(size), std::string::npos) << size << "\n" << sentence;
  }
}

TEST(BestQuant, HonoursTheHostsMemory) {
  // 8 GiB hold no 30e9 parameters of 4.9 bits: with --auto the host takes most, and must have the
  // room.
  const std::string words =
      "qwen3-30b-a3b --weights q4_k_m --engine llama.cpp --memory 8GiB --auto --context 8192";
  EXPECT_EQ(best_quant(words + " --host-memory 64GiB").at("answers").at(0).at("fits"), true);
  EXPECT_EQ(best_quant(words + " --host-memory 1GiB", 1).at("answers").at(0).at("fits"), false);
}

TEST(Inverses, SayWhenTheFormulaStandsInForTheDefaultEngine) {
  for (const std::string question : {"--smallest-gpu", "--best-quant --gpu rtx-4090"}) {
    const std::string words = "fit rwkv-5-world-3b --context 4096 " + question;
    const Ran ran = run_cli(words, 100);
    EXPECT_NE(ran.out.find("\nThe formula only, without an engine's own memory ("),
              std::string::npos)
        << ran.out;
    const std::string named = run_cli(words + " --engine ideal", 100).out;
    EXPECT_EQ(named.find("The formula only"), std::string::npos) << named;
  }
}

TEST(Inverses, TablesAreAsTheyWere) {
  const std::array<std::pair<const char*, const char*>, 3> goldens{
      {{"fit-smallest-gpu", "fit glm-4.7-flash --weights q4_k_m --smallest-gpu --context 32768"},
       {"fit-best-quant",
        "fit glm-4.7-flash --engine llama.cpp --best-quant --context 65536 --gpu rtx-4090"},
       {"fit-best-quant-none",
        "fit glm-4.7-flash --engine llama.cpp --best-quant --context 65536 --memory 4GiB"}}};
  for (const auto& [file, words] : goldens) {
    for (const int width : {80, 100}) {
      const Ran ran = run_cli(words, width);
      EXPECT_EQ(ran.err, "");
      expect_golden(ran.out, std::string(file) + "." + std::to_string(width) + ".txt");
    }
  }
}

}  // namespace
}  // namespace kvfathom::testing
