// kvfathom speed on machines of several kinds of devices, with work on the host, with drafts: each
// answer against what is known of its parts.
#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

/// Seconds of a prompt, or of a decode step of one sequence.
double seconds(const std::string& words, const std::string& phase, std::int64_t context) {
  const Json document = json_of("speed " + words);
  for (const Json& point : document.at("points")) {
    if (point.at("phase") == phase && point.at("context_tokens") == context &&
        point.at("batch") == 1) {
      return point.at("time_s").at("value");
    }
  }
  throw std::runtime_error("no such point");
}

double step_s(const std::string& words) {
  return seconds(words + " --context 4096", "decode", 4096);
}

/// llama.cpp splits layers by memory: an RTX 4090 (24,564 MiB) and an RTX 3060 (12,288 MiB) have 22
/// and 11 of 33, 21 and 12 where the smaller comes first (`memory` says so), and a token passes
/// them one after the other.
TEST(SpeedMachines, UnlikeGpusCostTheirSharesOfTheLayers) {
  const std::string words = "llama-3.1-8b --weights q8_0 --gpu ";
  const double fast = step_s(words + "rtx-4090");
  const double slow = step_s(words + "rtx-3060");
  ASSERT_GT(slow, 2.0 * fast);  // 1,008 and 360 GB/s
  const double by_hand = 22.0 / 33.0 * fast + 11.0 / 33.0 * slow;
  EXPECT_NEAR(step_s(words + "rtx-4090,rtx-3060"), by_hand, 0.01 * by_hand);
  const double other_way = 21.0 / 33.0 * fast + 12.0 / 33.0 * slow;
  EXPECT_NEAR(step_s(words + "rtx-3060,rtx-4090"), other_way, 0.01 * other_way);
}

TEST(SpeedMachines, RanksWaitForTheSlowest) {
  const std::string words = "llama-3.1-8b --engine vllm --tensor-parallel 2 --gpu ";
  EXPECT_DOUBLE_EQ(step_s(words + "h100-sxm,a100-sxm4-80gb"),
                   step_s(words + "a100-sxm4-80gb,a100-sxm4-80gb"));
}

/// Stages of equal layers, one after the other.
TEST(SpeedMachines, StagesAddUp) {
  const std::string words = "llama-3.1-8b --engine vllm --pipeline-parallel 2 --gpu ";
  const double mean = 0.5 * (step_s(words + "h100-sxm,h100-sxm") + step_s(words + "l40s,l40s"));
  EXPECT_NEAR(step_s(words + "h100-sxm,l40s"), mean, 0.05 * mean);
}

/// "--gpus 0: everything on the host": the GPU's bandwidth has no part in it. 8.5 GB of q8_0 at 80
/// GB/s take 0.1 s and more.
TEST(SpeedMachines, WithoutAGpuTheHostSetsTheTime) {
  const std::string words = "llama-3.1-8b --weights q8_0 --gpu rtx-4090 --gpus 0";
  const Ran ran = run_cli("speed " + words);
  EXPECT_EQ(ran.status, 2);
  EXPECT_EQ(ran.err,
            "kvfathom: --gpus: 0: everything runs on the host, whose bandwidth is not known; give "
            "--host-bandwidth RATE, or a CPU of the catalog as --gpu\n");
  const double host = step_s(words + " --host-bandwidth 80GB/s");
  EXPECT_GT(host, 8.0e9 / 80e9);
  EXPECT_LT(host, 4.0 * 8.5e9 / 80e9);
  EXPECT_NE(run_cli("speed " + words + " --host-bandwidth 80GB/s").out.find("runs on the host."),
            std::string::npos);
}

/// Prompts bring the experts that the host keeps to the GPU, from 32 tokens on. Measured by others:
/// an RTX 5080 with Qwen3.6-35B-A3B and all experts on the host reads 692 tokens a second of a
/// prompt of 2,700 (github.com/ollama/ollama/issues/11772); its host alone reads 46.
/// The rate of the copies is that report's own; what and how often is copied is tested.
TEST(SpeedMachines, PromptsBringTheHostsExpertsOver) {
  const std::string words =
      "speed qwen3.6-35b-a3b --weights q4_k_m --gpu rtx-5080 --cpu-moe --context 2700";
  const Json document = json_of(words);
  for (const Json& point : document.at("points")) {
    const bool is_prompt = point.at("phase") == "prefill";
    if (is_prompt && point.at("context_tokens") == 2700) {
      EXPECT_LT(point.at("tokens_per_s").at("low"), 692.0);
      EXPECT_GT(point.at("tokens_per_s").at("high"), 692.0);
      EXPECT_GT(point.at("tokens_per_s").at("value"), 692.0 / 2.0);
    }
    bool brings = false;
    for (const Json& op : point.at("ops")) {
      brings = brings || op.at("part") == "bring weights";
    }
    EXPECT_EQ(brings, is_prompt || point.at("batch") >= 32) << point.at("batch");
  }
  EXPECT_NE(run_cli(words).out.find("in steps of less than 32 tokens"), std::string::npos);
}

/// A step of k drafts takes k steps of the draft model and one of the model with k + 1 new tokens,
/// and yields (1 - a^(k+1)) / (1 - a) tokens (Leviathan et al. 2022).
TEST(SpeedMachines, ADraftModelCostsItsOwnSteps) {
  const std::string words = "qwen3-32b --weights q4_k_m --gpu rtx-3090 --context 4096 ";
  const std::string draft =
      "--draft qwen3-0.6b --draft-weights q8_0 --draft-tokens 4 --acceptance ";
  const double model = seconds(words, "decode", 4096);
  const double small =
      seconds("qwen3-0.6b --weights q8_0 --gpu rtx-3090 --context 4096", "decode", 4096);
  const Json document = json_of("speed " + words + draft + "0.8");
  for (const Json& point : document.at("points")) {
    if (point.at("phase") == "decode" && point.at("context_tokens") == 4096 &&
        point.at("batch") == 1) {
      const double step = point.at("time_s").at("value");
      EXPECT_GT(step, model + 4.0 * small);
      EXPECT_LT(step, 1.5 * model + 4.0 * small);
      EXPECT_NEAR(point.at("tokens_per_step"), 3.3616, 1e-4);
    }
  }
  const Ran ran = run_cli("speed " + words + draft + "0.8");
  EXPECT_NE(ran.out.find("Each step drafts 4 tokens by Qwen3-0.6B and yields 3.36"),
            std::string::npos)
      << ran.out;
  EXPECT_EQ(run_cli("speed " + words + "--draft qwen3-0.6b").err,
            "kvfathom: --draft-tokens: missing; give both: --draft-tokens K --acceptance A\n");
}

/// 0: what was asked for fits; 1: it does not.
TEST(SpeedMachines, TheExitCodeSaysWhetherItFits) {
  EXPECT_EQ(run_cli("speed llama-3.1-8b --gpu rtx-4090 --context 8192").status, 0);
  EXPECT_EQ(run_cli("speed llama-3.1-8b --gpu rtx-4090 --context 131072").status, 1);
  EXPECT_EQ(run_cli("speed llama-3.1-8b --gpu rtx-4090").status, 0);   // some contexts fit
  EXPECT_EQ(run_cli("speed llama-3.1-70b --gpu rtx-4090").status, 1);  // none does
}

TEST(SpeedMachines, NothingIsKnownOfTransformersSpeed) {
  const Ran ran = run_cli("speed llama-3.1-8b --gpu h100-sxm --engine huggingface");
  EXPECT_EQ(ran.status, 3);
  EXPECT_EQ(ran.out, "");
}

TEST(SpeedMachines, SaysWhatItAssumes) {
  EXPECT_NE(run_cli("speed llama-3.1-8b --gpu h100-sxm --context 200000")
                .out.find("The model was trained for 131,072 tokens."),
            std::string::npos);
  EXPECT_NE(run_cli("speed llama-3.1-8b --gpu epyc-9654 --engine ideal --context 8192")
                .out.find("large batches may take longer"),
            std::string::npos);
}

}  // namespace
}  // namespace kvfathom::testing
