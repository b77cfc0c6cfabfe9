// Schemes on the command line: their JSON, refusals and exit codes.
#include <cstdint>
#include <string>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

TEST(CacheTypes, Nvfp4IsForGpusThatMultiplyIt) {
  const std::string words =
      "memory llama-3.1-8b --engine vllm --context 8192 --cache-type-k nvfp4 --cache-type-v nvfp4 ";
  const Ran ada = run_cli(words + "--gpu rtx-4090");
  EXPECT_EQ(ada.status, 3);
  EXPECT_NE(ada.err.find("compute capability 8.9"), std::string::npos) << ada.err;
  EXPECT_EQ(run_cli(words + "--gpu b200").status, 0);
  EXPECT_EQ(run_cli(words + "--gpu rtx-5090 --weights fp8").status, 0);
}

using Json = nlohmann::json;

TEST(SchemeJson, CarriesSpellingNotesAndEvidence) {
  const Json document =
      json_of("memory llama-3.1-8b --context 32768 --scheme kivi:bits=4,group=128");
  const Json& scheme = document.at("scheme");
  EXPECT_EQ(scheme.at("id"), "kivi");
  EXPECT_EQ(scheme.at("spelling"), "kivi:bits=4,group=128,residual=128");
  EXPECT_EQ(scheme.at("exact"), false);
  EXPECT_EQ(scheme.at("engine_support"), true);
  EXPECT_EQ(scheme.at("quality").at(0).at("setting"), "4 bits, group 128");
  EXPECT_EQ(document.at("cache").at("bytes_per_token"), 131072 * 425 / 1600);
}

TEST(SchemeJson, TheNearestBudgetComesFirst) {
  const auto first = [](const std::string& scheme, const char* context) {
    return json_of("memory llama-3.1-8b --scheme " + scheme + " --context " + context)
        .at("scheme")
        .at("quality")
        .at(0);
  };
  EXPECT_EQ(first("evict-grkv:budget=1638", "16384").at("setting"), "10 % budget, from SnapKV");
  EXPECT_EQ(first("evict-grkv:budget=3276", "16384").at("setting"),
            "20 % budget, from Critical-AdaKV");
  EXPECT_EQ(first("evict-snapkv:budget=1638", "16384").at("baseline"), nullptr);
  EXPECT_EQ(first("head-linear:predicted=0.3", "1000").at("setting"), "30 % of heads predicted");
}

TEST(SchemeJson, WhereNothingWasPublishedThereIsNothing) {
  const Json document =
      json_of("memory llama-3.1-8b --context 1000 --scheme k-only:projector=learned");
  EXPECT_EQ(document.at("scheme").at("quality"), Json::array());
  const Ran text = run_cli("memory llama-3.1-8b --context 1000 --scheme k-only:projector=learned");
  EXPECT_NE(text.out.find("Nothing published on its quality"), std::string::npos);
}

TEST(SchemeJson, ExtraWeightsAndHostAreLines) {
  const Json document = json_of(
      "memory llama-3.1-8b --context 4096 --scheme head-linear+offload:tier=host,kept=0.5 "
      "--memory 24GiB");
  std::vector<std::string> lines;
  for (const Json& line : document.at("ledger")) {
    lines.push_back(line.at("device").get<std::string>() + " " +
                    line.at("line").get<std::string>());
  }
  EXPECT_EQ(lines,
            (std::vector<std::string>{
                "gpu0 weights", "gpu0 cache", "gpu0 extra_weights", "gpu0 compute", "host cache"}));
  EXPECT_EQ(document.at("scheme").at("id"), "head-linear+offload");
}

// 131072 B a token of Llama-3.1-8B: 4 GiB at 32768 tokens, of which three quarters leave.
TEST(SchemeJson, ATierThatIsNoDeviceHasItsBytesAndItsRow) {
  const std::string words =
      "memory llama-3.1-8b --context 32768 --memory 24GiB --scheme offload:tier=nvme,kept=0.25";
  const Json cache = json_of(words).at("cache");
  EXPECT_EQ(cache.at("offloaded"), (Json{{"tier", "nvme"}, {"bytes", 3LL << 30}}));
  const std::string text = run_cli(words + " --width 80").out;
  const std::size_t row = text.find("\n  nvme");
  ASSERT_NE(row, std::string::npos) << text;
  EXPECT_NE(text.substr(row, text.find('\n', row + 1) - row).find(" 3.00 "), std::string::npos);
  EXPECT_EQ(json_of("memory llama-3.1-8b --context 32768").at("cache").at("offloaded"), nullptr);
}

TEST(SchemeJson, EnginesRefuseWhatTheyDoNotRun) {
  const std::string words = "memory llama-3.1-8b --weights q8_0 --context 4096 --scheme ";
  const Json error = json_of(words + "kivi", 3);
  EXPECT_EQ(error.at("found"), "\"kivi\" is nothing that llama.cpp runs");
  EXPECT_EQ(error.at("allowed"), "--engine ideal prices it");
  json_of(words + "offload", 3);
  json_of(words + "kivi:bits=99", 2);
  json_of("memory llama-3.1-8b --context 4096 --scheme k-only", 2);  // grouped queries
}

TEST(SchemeJson, AllShowsEverySchemeThatApplies) {
  const Json document = json_of("fit llama-3.1-8b --weights q8_0 --gpu rtx-4090 --scheme all");
  std::map<std::string, bool> supported;
  for (const Json& answer : document.at("answers")) {
    const Json& scheme = answer.at("scheme");
    supported.emplace(scheme.at("spelling"), scheme.at("engine_support"));
  }
  EXPECT_EQ(supported.size(), 13U);
  EXPECT_TRUE(supported.at("native"));
  EXPECT_FALSE(supported.at("kivi:bits=2,group=32,residual=128"));
  ASSERT_EQ(document.at("not_applicable").size(), 1U);
  EXPECT_EQ(document.at("not_applicable").at(0).at("scheme"), "k-only");
}

TEST(SchemeJson, FullLiftsTheWindowsOfEveryLayer) {
  // gpt-oss-20b: 24 layers, 12 of them windowed, of 8 KV heads x 2 x 64 values in 16 bits; SGLang
  // has one more row, the slot of padded batches.
  constexpr std::int64_t kRow = 24LL * 8 * 2 * 64 * 2;
  constexpr std::int64_t kTokens = 32768;
  struct Engine {
    const char* words;
    std::int64_t rows;
    const char* option;
  };
  for (const Engine& engine :
       {Engine{"ideal", kTokens, ""},
        Engine{"llama.cpp", kTokens, " --swa-full"},
        Engine{"vllm --gpu h100-sxm", kTokens, " --disable-hybrid-kv-cache-manager"},
        Engine{"sglang --gpu h100-sxm", kTokens + 1, " --disable-hybrid-swa-memory"},
        Engine{"huggingface --gpu h100-sxm", kTokens, ""}}) {
    const Json document = json_of("memory gpt-oss-20b --context 32768 --scheme full --engine " +
                                  std::string(engine.words));
    EXPECT_EQ(document.at("cache").at("bytes"), engine.rows * kRow) << engine.words;
    EXPECT_EQ(document.at("cache").at("bytes_per_token"), kRow) << engine.words;
    EXPECT_EQ(document.at("scheme").at("id"), "full") << engine.words;
    if (*engine.option != '\0') {
      const std::string command = document.at("command");
      EXPECT_NE(command.find(engine.option), std::string::npos) << command;
    }
  }
  json_of("memory gpt-oss-20b --context 32768 --scheme full --engine llama.cpp --swa-full off", 2);
  json_of("memory gpt-oss-20b --context 32768 --scheme full --engine tensorrt-llm --gpu h100-sxm",
          3);
}

TEST(SchemeJson, FullIsNativeWhereEveryLayerIs) {
  const Json document = json_of("memory llama-3.1-8b --context 4096 --scheme full");
  EXPECT_EQ(document.at("scheme").at("id"), "native");
  json_of("memory deepseek-v3 --engine ideal --context 4096 --scheme full", 2);  // latents
}

TEST(SchemeJson, AllOfAnMhaModelLeavesNothingOut) {
  const Json document = json_of("fit llama-2-7b-hf --gpu rtx-4090 --scheme all");
  EXPECT_FALSE(document.contains("not_applicable"));
}

}  // namespace
}  // namespace kvfathom::testing
