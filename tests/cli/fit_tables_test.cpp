// What the tables of `fit` and `memory` must say beside their numbers: which schemes lose, which
// rows are an engine's and which the formula's, and what is a device's and what all devices'.
#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <tuple>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

/// Lines broken at a terminal's width, as one.
std::string unwrapped(const std::string& text) {
  std::string one;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n';
    if (!space || one.empty() || one.back() != ' ') {
      one += space ? ' ' : c;
    }
  }
  return one;
}

bool says(const std::string& words, const std::string& what, int width = 80) {
  return unwrapped(run_cli(words, width).out).find(what) != std::string::npos;
}

int count_of(const std::string& text, const std::string& what) {
  int n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    ++n;
  }
  return n;
}

// arXiv 2508.10395: KIVI of Llama-3.1-8B in 2 bits has a perplexity of 9.95 for 6.24.
TEST(PublishedQuality, EveryLossySchemeOfFitCarriesItsNearestFigure) {
  const std::string figure =
      "kivi: WikiText-2 PPL 9.95, baseline 6.24 (Llama-3.1-8B, 2 bits, group 128; arXiv 2508.10395";
  EXPECT_TRUE(says("fit llama-3.1-8b --gpu rtx-4090 --scheme kivi", figure));
  EXPECT_TRUE(says("fit llama-3.1-8b --gpu rtx-4090 --scheme kivi", "kivi ~"));
  EXPECT_TRUE(says("fit llama-3.1-8b --gpu rtx-4090 --scheme all", figure));
  EXPECT_TRUE(says("fit llama-3.1-8b --gpu rtx-4090 --scheme all --engine all", figure));
  EXPECT_TRUE(
      says("fit llama-3.1-8b --smallest-gpu --context 32768 --engine ideal --scheme kivi", figure));
  EXPECT_TRUE(says("fit llama-3.1-8b --gpu rtx-4090 --scheme k-only:projector=learned",
                   "k-only:projector=learned: nothing known here"));
  EXPECT_FALSE(says("fit llama-3.1-8b --gpu rtx-4090 --scheme residual", "~"));
}

TEST(PublishedQuality, TheModelItselfComesFirst) {
  const Json figures =
      json_of("memory llama-3.1-8b --context 32768 --scheme kivi").at("scheme").at("quality");
  EXPECT_EQ(figures.at(0).at("model"), "Llama-3.1-8B");
  EXPECT_EQ(json_of("memory llama-2-7b-hf --context 4096 --scheme kivi")
                .at("scheme")
                .at("quality")
                .at(0)
                .at("model"),
            "Llama-2-7B");
}

TEST(EnginesSideBySide, EachSchemeIsOnceOfAnEngineThatRunsIt) {
  const Json document = json_of("fit gemma-3-4b-it --gpu rtx-4090 --scheme all --engine all");
  std::set<std::tuple<std::string, std::string, std::string>> rows;
  std::set<std::string> of_the_formula;
  for (const Json& answer : document.at("answers")) {
    const std::string engine = answer.at("engine").at("name");
    const Json& scheme = answer.at("scheme");
    EXPECT_TRUE(scheme.at("engine_support")) << engine << " " << scheme.at("spelling");
    EXPECT_TRUE(rows.emplace(engine, scheme.at("spelling"), scheme.at("cache_type_k")).second);
    if (engine == "ideal") {
      of_the_formula.insert(scheme.at("spelling"));
    } else {
      EXPECT_TRUE(scheme.at("id") == "native" || scheme.at("id") == "full") << scheme.at("id");
    }
  }
  EXPECT_EQ(of_the_formula.size(), 14U);  // two of residual among them
}

TEST(EnginesSideBySide, TheTablesNameEveryRowAndTheSentencesTheCache) {
  const std::string words = "fit gemma-3-4b-it --gpu rtx-4090 --scheme all --engine all";
  const std::string text = run_cli(words, 80).out;
  EXPECT_NE(text.find("B/token"), std::string::npos) << text;
  EXPECT_EQ(count_of(text, "residual:checkpoints=tokens"), 2) << text;  // a row of each table
  EXPECT_EQ(text.find("0.00 x the bytes"), std::string::npos) << text;
  EXPECT_EQ(text.find("- ideal"), std::string::npos) << text;
  EXPECT_TRUE(says("fit gemma-3-4b-it --gpu rtx-4090 --engine all",
                   "vllm: as many tokens as ideal; cache +0.24 GiB, compute"));
}

// The latent's 576 values and V's 512 in 16 bits, 47 layers: 102,272 B a token. By the formula that
// holds fewer tokens than the V-less 54,144 B do, whatever vLLM adds to those.
TEST(SchemesOfOneEngine, RowsByFormulaHaveTheFormulasNativeRowBeforeThem) {
  const Json answers =
      json_of("fit glm-4.7-flash --gpu h100-sxm --scheme all --beyond-trained").at("answers");
  std::int64_t native = 0;
  bool behind_the_engine = false;
  for (const Json& answer : answers) {
    const Json& scheme = answer.at("scheme");
    const bool by_formula = answer.at("engine").at("name") == "ideal";
    EXPECT_TRUE(by_formula || !behind_the_engine);
    behind_the_engine = behind_the_engine || by_formula;
    EXPECT_EQ(scheme.at("engine_support"), !by_formula);
    if (by_formula && scheme.at("id") == "native") {
      native = answer.at("max_context_tokens");
    } else if (by_formula && scheme.at("id") == "mla-with-v") {
      EXPECT_GT(native, answer.at("max_context_tokens").get<std::int64_t>() * 18 / 10);
    }
  }
  EXPECT_GT(native, 0);
  EXPECT_TRUE(says("fit glm-4.7-flash --gpu h100-sxm --scheme all",
                   "does not run, by the formula, without its own memory: native"));
}

// Every one of 8 ranks keeps the whole latent: 47 layers x 576 values x 2 B = 54,144 B a token.
TEST(ManyGpus, AlikeOnesAreOneSectionAndSumsSayThatTheyAreSums) {
  const std::string words =
      "memory glm-4.7-flash --gpu h100-sxm --gpus 4 --tensor-parallel 4 --context 32768 --engine ";
  const std::string text = run_cli(words + "vllm").out;
  EXPECT_EQ(count_of(text, "weights  "), 1) << text;
  EXPECT_NE(text.find("each of"), std::string::npos) << text;
  EXPECT_NE(text.find("4 GPUs"), std::string::npos) << text;
  EXPECT_NE(
      unwrapped(text).find("One more token adds 216,576 B in all, 54,144 B on each of 4 GPUs"),
      std::string::npos)
      << text;
  for (const char* engine : {"vllm", "ideal"}) {
    EXPECT_EQ(json_of(words + engine).at("cache").at("groups").at(0).at("streams"), 4) << engine;
  }
}

TEST(ManyGpus, EnginesSideBySideSayWhoseBytesTheyCount) {
  const std::string sentence = "B/token: of all GPUs together; GiB: of the first";
  const std::string words = "fit llama-3.1-8b --gpu h100-sxm --engine all";
  EXPECT_TRUE(says(words + " --gpus 2 --tensor-parallel 2", sentence));
  EXPECT_FALSE(says(words, sentence));
}

TEST(ManyGpus, ASequenceIsOnOneReplica) {
  const std::string words =
      "memory llama-3.1-8b --gpu h100-sxm --gpus 2 --data-parallel 2 --sequences 2 "
      "--context 32768 --engine vllm";
  EXPECT_EQ(json_of(words).at("cache").at("bytes_per_token"), 131072);
  EXPECT_TRUE(says(words, "One more token adds 131,072 B."));
}

TEST(ManyGpus, StagesThatDifferKeepTheirSections) {
  const std::string text = run_cli(
                               "memory llama-3.1-8b --gpu h100-sxm --gpus 4 --tensor-parallel 2 "
                               "--pipeline-parallel 2 --context 4096 --engine vllm")
                               .out;
  EXPECT_EQ(count_of(text, "each of"), 2) << text;
  EXPECT_NE(text.find("gpu0-1"), std::string::npos) << text;
  EXPECT_NE(text.find("gpu2-3"), std::string::npos) << text;
}

// A quarter of 131,072 B a token stays with the GPU.
TEST(SlowerTiers, ATokenCountsWhereItStays) {
  EXPECT_TRUE(says(
      "fit llama-3.1-8b --gpu rtx-4090 --scheme native --scheme offload --engine ideal", "32,768"));
  EXPECT_TRUE(
      says("fit llama-3.1-8b --gpu rtx-4090 --scheme native --scheme offload --engine ideal",
           "0.25 x native"));
  EXPECT_TRUE(says("memory llama-3.1-8b --context 32768 --scheme offload",
                   "One more token adds 131,072 B, 98,304 B of it in the slower tier"));
}

TEST(SlowerTiers, StatesDoNotLeave) {
  const Json document = json_of("fit mamba2-2.7b --gpu rtx-4090 --scheme all");
  bool told = false;
  for (const Json& scheme : document.at("not_applicable")) {
    told = told || scheme.at("scheme") == "offload";
  }
  EXPECT_TRUE(told);
  json_of("memory mamba2-2.7b --context 4096 --scheme offload", 2);
}

TEST(Eviction, AGeneratedTokenTakesWhatTheBudgetDoesNotHold) {
  EXPECT_TRUE(says("memory llama-3.1-8b --context 32768 --scheme evict-snapkv",
                   "One more token of the prompt adds 0 B, one that is generated 131,072 B"));
  EXPECT_TRUE(says("memory llama-3.1-8b --context 32768 --scheme evict-snapkv:generated=64",
                   "One more token adds 0 B"));
}

TEST(AutoPlacement, SaysWhichLongerContextFitsOnceItIsNamed) {
  const std::string words =
      "qwen3-30b-a3b --weights q4_k_m --gpu rtx-4070 --host-memory 64GiB --auto";
  const std::string text = unwrapped(run_cli("fit " + words).out);
  const std::string mark = "memory --auto --context ";
  const std::size_t at = text.find(mark);
  ASSERT_NE(at, std::string::npos) << text;
  const std::size_t number = at + mark.size();
  const std::string tokens = text.substr(number, text.find(' ', number) - number);
  EXPECT_GE(std::stoll(tokens), 32768);
  EXPECT_EQ(run_cli("memory " + words + " --context " + tokens).status, 0);
}

TEST(Headlines, WeightsAreCalledByWhatMostOfThemAre) {
  const std::string text = run_cli("fit gpt-oss-120b --gpu h100-sxm --engine llama.cpp").out;
  EXPECT_NE(text.find("mxfp4 weights"), std::string::npos) << text;
  EXPECT_NE(text.find("-m gpt-oss-120b-mxfp4.gguf"), std::string::npos) << text;
}

TEST(ListSchemes, TakesTwoLinesAScheme) {
  const std::string text = run_cli("list schemes --quiet", 100).out;
  const Json document = json_of("list schemes");
  EXPECT_EQ(count_of(text, "\n"), 2 * static_cast<int>(document.at("items").size())) << text;
}

TEST(PrintedCommands, NameWhatTheEngineCanLoad) {
  const std::string words =
      "memory llama-3.1-8b --gpu h100-sxm --context 32768 --engine vllm --weights ";
  const auto command = [&](const std::string& weights) {
    return json_of(words + weights).at("command").get<std::string>();
  };
  EXPECT_EQ(command("fp8"),
            "vllm serve meta-llama/Llama-3.1-8B --max-model-len 32768 --quantization fp8");
  EXPECT_EQ(
      command("awq"),
      "vllm serve '<checkpoint of meta-llama/Llama-3.1-8B in awq-g128>' --max-model-len 32768");
  const Json best =
      json_of("fit llama-3.1-8b --gpu h100-sxm --engine vllm --best-quant --context 32768",
              0,
              "fit-best-quant");
  for (const Json& answer : best.at("answers")) {
    const std::string text = answer.at("command");
    const bool is_own = text.starts_with("vllm serve meta-llama/Llama-3.1-8B --max-model-len");
    EXPECT_NE(is_own, text.starts_with("vllm serve '<checkpoint of meta-llama/Llama-3.1-8B in "))
        << text;
    EXPECT_EQ(text.find("--quantization fp8") != std::string::npos, answer.at("weights") == "fp8");
  }
}

TEST(PrintedCommands, WarnOfAContextBeyondTheTrainedOne) {
  const std::string words = "memory llama-3.1-8b --gpu h100-sxm --engine vllm --context ";
  EXPECT_TRUE(says(words + "200000", "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"));
  EXPECT_FALSE(says(words + "131072", "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"));
}

TEST(Catalog, ADeviceIsWhatSoftwareSees) {
  EXPECT_EQ(json_of("fit llama-3.1-8b --gpu mi250x").at("gpu").at("usable_bytes"), 64LL << 30);
}

TEST(Catalog, LlamaCppRunsOnNoGaudi) {
  const std::string words =
      "fit llama-3.1-8b --smallest-gpu --context 8192 --vendor intel --max-gpus 1 --engine ";
  const auto tried = [&](const char* engine) {
    return json_of(words + engine, 0, "fit-smallest-gpu").at("n_tried").get<int>();
  };
  EXPECT_EQ(tried("ideal"), tried("llama.cpp") + 2);  // Gaudi 2 and 3
}

}  // namespace
}  // namespace kvfathom::testing
