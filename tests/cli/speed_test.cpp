// kvfathom speed: what its document says, and that it hangs together.
#include <cmath>

#include "cli/format.h"
#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

/// `status`: 1 where the context does not fit.
Json speed(const std::string& words, int status = 0) {
  return json_of("speed " + words, status);
}

const Json& decode_point(const Json& document, std::int64_t context, std::int64_t batch) {
  for (const Json& point : document.at("points")) {
    if (point.at("phase") == "decode" && point.at("context_tokens") == context &&
        point.at("batch") == batch) {
      return point;
    }
  }
  throw std::runtime_error("no such point");
}

TEST(Speed, PointsHangTogether) {
  const Json document = speed("llama-3.1-8b --gpu h100-sxm --engine ideal --context 16384");
  for (const Json& point : document.at("points")) {
    const Json& time = point.at("time_s");
    EXPECT_LE(time.at("low"), time.at("value"));
    EXPECT_GE(time.at("high"), time.at("value"));
    const double tokens =
        point.at("phase") == "prefill" ? point.at("context_tokens") : point.at("batch");
    const double rate = point.at("tokens_per_s").at("value");
    EXPECT_NEAR(rate * static_cast<double>(time.at("value")), tokens, 1e-6 * tokens);
    double sum = 0.0;
    for (const Json& op : point.at("ops")) {
      sum += static_cast<double>(op.at("time_s"));
    }
    EXPECT_LE(sum, time.at("value"));
  }
}

TEST(Speed, ALongerContextIsNeverQuicker) {
  const Json document = speed("qwen3-8b --gpu rtx-4090 --engine ideal --context 32768");
  double before = 0.0;
  for (const std::int64_t context : {1024, 4096, 16384, 32768}) {
    const double now = decode_point(document, context, 1).at("time_s").at("value");
    EXPECT_GT(now, before);
    before = now;
  }
}

// What llama.cpp's fit leaves on the host is priced there: as many layers' experts as by hand.
TEST(Speed, AutoPricesTheExpertsThatItLeavesOnTheHost) {
  const std::string words =
      "qwen3-30b-a3b --weights q8_0 --gpu rtx-4090 --engine llama.cpp "
      "--context 4096 ";
  const Json document = speed(words + "--auto");
  EXPECT_EQ(decode_point(document, 4096, 1).at("fits"), true);
  std::int64_t on_host = 0;
  const Json memory = json_of("memory " + words + "--auto");
  for (const Json& placed : memory.at("placement").at("moved")) {
    const std::int64_t first = placed.at("first_layer");
    const std::int64_t last = placed.at("last_layer");
    on_host += last - first + 1;
  }
  ASSERT_GT(on_host, 0);
  const Json by_hand = speed(words + "--cpu-moe-layers " + std::to_string(on_host));
  EXPECT_DOUBLE_EQ(decode_point(document, 4096, 1).at("time_s").at("value").get<double>(),
                   decode_point(by_hand, 4096, 1).at("time_s").at("value").get<double>());
}

TEST(Speed, TwiceTheGpusAreQuickerByLessThanTwice) {
  const std::string words = "llama-3.1-70b --gpu h100-sxm --engine vllm --context 8192 ";
  const double two =
      decode_point(speed(words + "--tensor-parallel 2", 1), 8192, 1).at("time_s").at("value");
  const double four =
      decode_point(speed(words + "--tensor-parallel 4"), 8192, 1).at("time_s").at("value");
  EXPECT_LT(four, two);
  EXPECT_GT(2.0 * four, two);
}

// FlashAttention 3 on an H100 as published (data/calibrations/published/h100-sxm-vllm-0.24.0.json):
// 32 layers of 131,072 tokens, 8 KV heads of 128. In 16 bits 10.7 + 1.7 us and 537 MB at 3.02 TB/s,
// in 8 bits 11.9 + 3.4 us and 268 MB at 2.72 TB/s.
TEST(Speed, ACacheOf8BitFloatsGoesByItsOwnKernels) {
  const auto attention_s = [](const std::string& types) {
    const Json document = speed("llama-3.1-8b --gpu h100-sxm --engine vllm" + types);
    for (const Json& op : decode_point(document, 131072, 1).at("ops")) {
      if (op.at("part") == "attention") {
        return static_cast<double>(op.at("time_s"));
      }
    }
    return 0.0;
  };
  const double of_16_bits = 32.0 * (12.4e-6 + 536.9e6 / 3.017e12);
  const double of_8_bits = 32.0 * (15.3e-6 + 268.4e6 / 2.718e12);
  EXPECT_NEAR(attention_s(""), of_16_bits, 0.01 * of_16_bits);
  EXPECT_NEAR(attention_s(" --cache-type-k fp8 --cache-type-v fp8"), of_8_bits, 0.01 * of_8_bits);
}

TEST(Speed, EnergyIsThePowerForTheStep) {
  const Json document = speed("llama-3.1-8b --gpu h100-sxm --engine ideal --context 4096 --energy");
  const Json& point = decode_point(document, 4096, 4);
  EXPECT_NEAR(point.at("energy_j_per_token"),
              700.0 * static_cast<double>(point.at("time_s").at("value")) / 4.0,
              1e-9);
}

TEST(Speed, TablesFitIntoSixtyColumns) {
  const Ran ran = run_cli("speed llama-3.1-8b --gpu h100-sxm", 60);
  for (std::size_t at = 0; at < ran.out.size();) {
    const std::size_t end = ran.out.find('\n', at);
    EXPECT_LE(cli::display_width(ran.out.substr(at, end - at)), 60) << ran.out;
    at = end + 1;
  }
}

// 700 W over 7.34 ms of one sequence's token: the comparison of schemes has it too.
TEST(Speed, SchemesAreComparedByEnergyToo) {
  const Ran ran = run_cli(
      "speed llama-2-7b-hf --gpu h100-sxm --engine ideal --context 4096 --scheme kivi --energy",
      100);
  EXPECT_NE(ran.out.find("beats native  J/token"), std::string::npos) << ran.out;
  EXPECT_NE(ran.out.find("5.14"), std::string::npos) << ran.out;
}

TEST(Speed, WithoutAPeakRatePromptsHaveNoTime) {
  const Json document =
      speed("llama-3.1-8b --memory 40GiB --bandwidth 500GB/s --engine ideal --context 4096");
  for (const Json& point : document.at("points")) {
    EXPECT_EQ(point.at("phase"), "decode");
  }
  const Ran ran = run_cli("speed llama-3.1-8b --memory 40GiB --bandwidth 500GB/s --engine ideal");
  EXPECT_NE(ran.out.find("prompts have no time"), std::string::npos);
}

TEST(Speed, RefusesWhatItCannotPrice) {
  EXPECT_EQ(run_cli("speed llama-3.1-8b").status, 2);
  EXPECT_EQ(run_cli("speed llama-3.1-8b --memory 40GiB --engine ideal").status, 2);
}

// Qwen2.5-Coder-14B (Q4_K_M) on an RTX 5060 Ti, tokens a second by -ngl
// (inventivehq.com/blog/vram-offload-cliff-gpu-layers-benchmark). The host is told by its first
// figure, 2.89 with everything on it; the others follow.
TEST(Speed, LayersOnTheHostSlowEachStepAsWasMeasured) {
  const std::string words =
      "qwen2.5-14b --weights q4_k_m --gpu rtx-5060-ti-16gb --engine llama.cpp --context 1024 "
      "--host-bandwidth 33GB/s --gpu-layers ";
  const auto rate = [&](int gpu_layers) {
    const Json point = decode_point(speed(words + std::to_string(gpu_layers)), 1024, 1);
    return point.at("tokens_per_s").at("value").get<double>();
  };
  constexpr double kOff = 0.12;
  EXPECT_NEAR(rate(0), 2.89, 0.05 * 2.89);
  for (const auto& [gpu_layers, measured] :
       {std::pair{8, 3.58}, {16, 4.24}, {24, 5.61}, {32, 7.26}, {40, 12.5}, {99, 43.18}}) {
    EXPECT_NEAR(rate(gpu_layers), measured, kOff * measured) << gpu_layers;
  }
}

// A prompt waits for the layers that are brought over, once a micro-batch.
TEST(Speed, PromptsWaitForTheLayersThatAreBroughtOver) {
  const std::string words =
      "qwen2.5-14b --weights q4_k_m --gpu rtx-5060-ti-16gb --engine llama.cpp --context 1024 "
      "--gpu-layers ";
  const auto link_s = [&](const std::string& more) {
    double sum = 0.0;
    const Json document = speed(words + more);
    for (const Json& point : document.at("points")) {
      if (point.at("phase") == "prefill" && point.at("context_tokens") == 1024) {
        for (const Json& op : point.at("ops")) {
          const std::string part = op.at("part");
          sum += part == "bring weights" ? static_cast<double>(op.at("time_s")) : 0.0;
        }
      }
    }
    return sum;
  };
  EXPECT_EQ(link_s("49"), 0.0);
  const double all = link_s("1");
  EXPECT_NEAR(link_s("25"), all / 2.0, 0.05 * all);
  EXPECT_NEAR(link_s("1 --ubatch-tokens 1024"), all / 2.0, 0.02 * all);
}

TEST(Speed, SchemesAreComparedWithTheNativeOne) {
  const Json document = speed(
      "llama-2-7b-hf --gpu h100-sxm --engine ideal --context 4096 --scheme evict-streaming "
      "--scheme residual");
  const Json& schemes = document.at("schemes");
  ASSERT_EQ(schemes.size(), 3U);
  EXPECT_EQ(schemes.at(0).at("scheme").at("id"), "native");
  EXPECT_GT(schemes.at(1).at("pays_from_tokens"), 0);
  // Every token is projected again at every step: never quicker than reading K and V from HBM.
  EXPECT_TRUE(schemes.at(2).at("pays_from_tokens").is_null());
}

TEST(Speed, DraftsPayByHowOftenTheyAreRight) {
  const std::string words = "glm-4.5-air --gpu h200-sxm --engine ideal --context 8192";
  const auto tpot = [](const Json& document) {
    const Json& point = decode_point(document, 8192, 1);
    const double per_step = point.at("tokens_per_step");
    return static_cast<double>(point.at("time_s").at("value")) / per_step;
  };
  const double plain = tpot(speed(words, 1));
  EXPECT_LT(tpot(speed(words + " --draft-tokens 1 --acceptance 0.9", 1)), plain);
  EXPECT_GT(tpot(speed(words + " --draft-tokens 4 --acceptance 0", 1)), plain);
  EXPECT_EQ(run_cli("speed llama-3.1-8b --gpu h100-sxm --draft-tokens 2 --acceptance 0.5").status,
            2);
  EXPECT_EQ(run_cli("speed " + words + " --draft-tokens 2").status, 2);
}

}  // namespace
}  // namespace kvfathom::testing
