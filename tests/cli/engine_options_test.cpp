// Options that an engine does not have are refused by name.
#include <string>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

struct Foreign {
  const char* engine;
  const char* option;
  const char* value;
  const char* instead;
};

class ForeignOptions : public ::testing::TestWithParam<Foreign> {};

TEST_P(ForeignOptions, AreRefusedWithWhatToUseInstead) {
  const Foreign& one = GetParam();
  const Ran ran = run_cli(std::string("memory llama-3.1-8b --gpu h100 --context 1024 --engine ") +
                          one.engine + " " + one.option + " " + one.value);
  EXPECT_EQ(ran.status, 2);
  EXPECT_EQ(ran.err,
            std::string("kvfathom: ") + one.option + ": " + one.engine + " has no such option; " +
                one.instead + "\n");
}

INSTANTIATE_TEST_SUITE_P(
    Engines,
    ForeignOptions,
    ::testing::Values(
        Foreign{
            "llama.cpp", "--tensor-parallel", "2", "llama.cpp splits layers over GPUs: --gpus N"},
        Foreign{"llama.cpp", "--data-parallel", "2", "one server is one replica: leave it out"},
        Foreign{"llama.cpp",
                "--gpu-memory-utilization",
                "0.5",
                "--reserve SIZE keeps memory of a GPU free"},
        Foreign{"llama.cpp", "--max-sequences", "8", "use --sequences"},
        Foreign{"vllm", "--ubatch-tokens", "256", "use --max-batched-tokens"},
        Foreign{"vllm", "--flash-attention", "off", "leave it out: scores are never stored whole"},
        Foreign{"sglang", "--kv-unified", "on", "leave it out: sequences share one cache"},
        Foreign{"tensorrt-llm", "--swa-full", "on", "use --scheme full"},
        Foreign{"ideal", "--block-tokens", "32", "its cache has no pages: leave it out"}));

TEST(EngineOptions, OneRankIsWhatEveryEngineHas) {
  EXPECT_EQ(
      run_cli("memory llama-3.1-8b --context 8 --engine llama.cpp --tensor-parallel 1").status, 0);
}

TEST(EngineOptions, TheDefaultEngineNamesTheOneThatHasIt) {
  const Ran ran = run_cli("memory llama-3.1-8b --context 8 --ubatch-tokens 256");
  EXPECT_EQ(ran.status, 2);
  EXPECT_NE(ran.err.find("or name --engine llama.cpp"), std::string::npos) << ran.err;
}

TEST(EngineOptions, BesideOthersAnEngineWithoutTheOptionStepsAside) {
  const auto document =
      json_of("fit llama-3.1-8b --gpu h100 --engine all --gpu-memory-utilization 0.5");
  std::string refused;
  for (const auto& one : document.at("refused")) {
    refused +=
        one.at("engine").get<std::string>() + ": " + one.at("reason").get<std::string>() + "\n";
  }
  EXPECT_NE(refused.find("llama.cpp: --gpu-memory-utilization: llama.cpp has no such option"),
            std::string::npos)
      << refused;
  for (const auto& answer : document.at("answers")) {
    EXPECT_NE(answer.at("engine").at("name"), "llama.cpp");
  }
}

}  // namespace
}  // namespace kvfathom::testing
