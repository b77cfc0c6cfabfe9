// Towers of checkpoints, parameter by parameter, against totals that others counted: the sum of a
// checkpoint's tensors, or general.parameter_count of a GGUF that holds decoder and towers.
#include <string>

#include <gtest/gtest.h>

#include "model/architecture/parameters.h"
#include "model/error.h"
#include "model/io/hf_config.h"
#include "tests/catalog_entries.h"

namespace kvfathom {
namespace {

const std::string kConfigs = std::string(KVFATHOM_SOURCE_DIR) + "/tests/data/configs/";

ModelSpec read(const std::string& name, const char* patch = "-") {
  const std::string config = catalog::read_all(kConfigs + name + ".json");
  return read_hf_config_text(catalog::patched(config, patch), name);
}

std::int64_t with_towers(const ModelSpec& model) {
  const ParameterCount n = count_parameters(model);
  return n.total + n.vision + n.audio;
}

constexpr const char* kGemma4Small = R"({
  "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 16,
    "num_attention_heads": 12, "head_dim": 64, "patch_size": 16, "use_clipped_linears": true},
  "audio_config": {"use_clipped_linears": true}})";

constexpr const char* kSiglip = R"({"vision_config": {"hidden_size": 1152, "image_size": 896,
  "intermediate_size": 4304, "num_hidden_layers": 27, "patch_size": 14}})";

constexpr const char* kPixtral = R"({"vision_config": {"hidden_size": 1024,
  "intermediate_size": 4096, "num_hidden_layers": 24, "patch_size": 14}})";

// general.parameter_count of the GGUFs that hold both towers; they count the table of rotary
// factors as we do.
TEST(HfTowers, OfGemma4AreCountedToTheParameter) {
  EXPECT_EQ(with_towers(read("google--gemma-4-E2B-it", kGemma4Small)), 5'123'179'235);
  EXPECT_EQ(with_towers(read("google--gemma-4-E4B-it", kGemma4Small)), 7'996'157'674);
  EXPECT_EQ(with_towers(read("nvidia--Gemma-4-31B-IT-NVFP4")), 31'273'089'132);
  EXPECT_EQ(with_towers(read("google--gemma-4-26B-A4B")), 25'805'936'462);
}

// Totals of the checkpoints' tensors; Scout's has no table of rotary factors.
TEST(HfTowers, OfOtherFamiliesAreCountedToTheParameter) {
  constexpr std::int64_t kRotaryFactors = 64;
  EXPECT_EQ(with_towers(read("google--gemma-3-4b-it")), 4'300'079'472);
  EXPECT_EQ(with_towers(read("google--gemma-3-27b-it", kSiglip)), 27'432'406'640);
  EXPECT_EQ(with_towers(read("Qwen--Qwen3-VL-8B-Instruct")), 8'767'123'696);
  EXPECT_EQ(with_towers(read("meta-llama--Llama-4-Maverick-17B-128E-Instruct")), 401'583'781'376);
  EXPECT_EQ(with_towers(read("meta-llama--Llama-4-Scout-17B-16E-Instruct")),
            108'641'793'536 + kRotaryFactors);
  EXPECT_EQ(with_towers(read("mistralai--Mistral-Small-3.1-24B-Instruct-2503", kPixtral)),
            24'011'361'280);
}

// Parameters of the towers alone, as counted from the released files.
TEST(HfTowers, OfKimiAreCountedToTheParameter) {
  EXPECT_EQ(count_parameters(read("moonshotai--Kimi-K2.5")).vision, 471'143'920);
  EXPECT_EQ(count_parameters(read("moonshotai--Kimi-K3")).vision, 447'358'976);
  EXPECT_EQ(count_parameters(read("Qwen--Qwen3.5-397B-A17B")).vision, 456'010'480);
}

// By hand, from the class: 50 layers of 4 x 1536^2 + 4 x 1536 (attention), 2 x 1536 x 8960 +
// 8960 + 1536 (feed-forward) and 4 x 1536 (norms); patches of 2 x 3 x 14^2 values; 1024 positions
// and two more norms; 6144 x 4096, 4096^2 and 4096 x the text's width.
TEST(HfTowers, OfMuseGlimmerIsCountedFromItsClass) {
  const ModelSpec model = read("meta-models--Muse-Glimmer-30B");
  constexpr std::int64_t kLayer = 4 * 2'359'296 + 4 * 1536 + 27'525'120 + 10'496 + 4 * 1536;
  constexpr std::int64_t kProjector = 25'165'824 + 16'777'216;
  EXPECT_EQ(count_parameters(model).vision,
            50 * kLayer + 1'806'336 + 1'572'864 + 6144 + kProjector + 4096 * model.hidden_size);
}

// The conformer by hand: 12 layers of 2 x (8 x 1536^2 + 2 x 1536), 5 x 1536^2 + 192,
// 3 x 1536^2 + 7 x 1536 and 3 x 1536; convolutions of 9 x 128 and 9 x 128 x 32 with their norms,
// 1024 x 1536; 128 hard tokens, two norms and 1536 x 2048.
TEST(HfTowers, OfGemma3nAreAConformerAndAMobileNet) {
  const ModelSpec model =
      read("google--gemma-3n-E2B-it", R"({"vision_config": {}, "audio_config": {}})");
  constexpr std::int64_t kLayer =
      2 * (18'874'368 + 3072) + 11'796'480 + 192 + 7'077'888 + 10'752 + 4608;
  constexpr std::int64_t kSubsampling = 1152 + 128 + 36'864 + 32 + 1'572'864;
  const ParameterCount n = count_parameters(model);
  EXPECT_EQ(n.audio, 12 * kLayer + kSubsampling + 196'608 + 3072 + 3'145'728);
  EXPECT_NEAR(static_cast<double>(n.vision), 294.1e6 + 4.46e6, 0.1e6);  // published: 294.1 M
}

TEST(HfTowers, ATowerOfAnotherNameIsRefused) {
  EXPECT_THROW(
      read("google--gemma-3n-E2B-it", R"({"vision_config": {"architecture": "mobilenetv6"}})"),
      InputError);
}

TEST(HfTowers, ACopyWithoutThemHasNone) {
  EXPECT_TRUE(read("google--gemma-4-E2B-it").extras.empty());
}

}  // namespace
}  // namespace kvfathom
