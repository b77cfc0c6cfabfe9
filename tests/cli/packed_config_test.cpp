// A config.json of packed weights: what it does not say is asked for, not taken for 16 bits.
#include <filesystem>
#include <fstream>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

/// Qwen3-32B's config with this beside it.
std::string config_with(const std::string& name, const std::string& quantization) {
  const std::filesystem::path whole =
      std::filesystem::path(KVFATHOM_SOURCE_DIR) / "tests/data/configs/Qwen--Qwen3-32B.json";
  nlohmann::json config = nlohmann::json::parse(read_all(whole));
  config["quantization_config"] = nlohmann::json::parse(quantization);
  const std::filesystem::path path = std::filesystem::path(::testing::TempDir()) / (name + ".json");
  std::ofstream(path) << config;
  return path.string();
}

TEST(PackedConfig, IsRefusedUnlessTheWeightsAreNamed) {
  for (const char* quantization :
       {R"({"quant_method": "awq", "bits": 4, "group_size": 128})",
        R"({"quant_method": "gptq", "bits": 4, "group_size": 128})",
        R"({"quant_method": "bitsandbytes", "load_in_4bit": true})",
        R"({"quant_method": "compressed-tensors", "format": "pack-quantized"})"}) {
    const std::string path = config_with("packed", quantization);
    const std::string words = "memory " + path + " --gpu h100-sxm --context 8192";
    const Ran ran = run_cli(words);
    EXPECT_EQ(ran.status, 3) << quantization;
    EXPECT_NE(ran.err.find("give --weights"), std::string::npos) << ran.err;
    // 31.2 B of 32.8 B parameters in 4.16 bits, the embedding and the head in 16.
    const nlohmann::json document = json_of(words + " --weights awq");
    const double weights = document.at("ledger").at(0).at("bytes");
    EXPECT_NEAR(weights, 31.2e9 * 4.16 / 8.0 + 1.56e9 * 2.0, 0.5e9);
  }
}

TEST(PackedConfig, AFormatThatAConfigTellsWhollyIsRead) {
  const std::string path = config_with("fp8", R"({"quant_method": "fp8", "fmt": "e4m3"})");
  EXPECT_EQ(run_cli("memory " + path + " --gpu h100-sxm --context 8192").status, 0);
}

}  // namespace
}  // namespace kvfathom::testing
