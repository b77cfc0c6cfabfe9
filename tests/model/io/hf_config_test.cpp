// The quirks of real configs, one test each.
#include "model/io/hf_config.h"

#include <algorithm>
#include <string>
#include <variant>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "model/architecture/parameters.h"
#include "model/error.h"
#include "tests/catalog_entries.h"

namespace kvfathom {
namespace {

const std::string kConfigs = std::string(KVFATHOM_SOURCE_DIR) + "/tests/data/configs/";

ModelSpec read(const std::string& file) {
  return read_hf_config(kConfigs + file + ".json");
}

template <typename Kind>
std::int64_t n_with(const ModelSpec& model) {
  return std::count_if(model.layers.begin(), model.layers.end(), [](const LayerSpec& layer) {
    return std::holds_alternative<Kind>(layer.mixer);
  });
}

const Attention& attention(const ModelSpec& model, std::size_t layer) {
  return std::get<Attention>(model.layers.at(layer).mixer);
}

const MixtureOfExperts& experts(const ModelSpec& model, std::size_t layer) {
  return std::get<MixtureOfExperts>(model.layers.at(layer).feed_forward);
}

/// "....G....G": G a layer that sees all, . a layer with `window`, ? anything else.
std::string windows(const ModelSpec& model, std::int64_t window) {
  std::string text;
  for (const LayerSpec& layer : model.layers) {
    const auto* own = std::get_if<Attention>(&layer.mixer);
    const auto* shared = std::get_if<SharedAttention>(&layer.mixer);
    const Attention* a = own != nullptr ? own : shared != nullptr ? &shared->attention : nullptr;
    text += a == nullptr ? '?' : !a->window_tokens ? 'G' : a->window_tokens == window ? '.' : '?';
  }
  return text;
}

// ---- Key figures -----------------------------------------------------------------------------

TEST(HfConfig, Glm47FlashHas29Point94BillionWithoutItsPredictionLayer) {
  const ModelSpec model = read("zai-org--GLM-4.7-Flash");
  EXPECT_EQ(model.name, "zai-org--GLM-4.7-Flash");
  EXPECT_EQ(model.architecture, "deepseek2");
  EXPECT_EQ(n_layers(model), 47);
  EXPECT_NEAR(static_cast<double>(count_parameters(model).total) / 1e9, 29.94, 0.005);
  EXPECT_EQ(std::get<LatentAttention>(model.layers[0].mixer),
            (LatentAttention{.n_heads = 20,
                             .q_lora_rank = 768,
                             .kv_lora_rank = 512,
                             .qk_nope_head_dim = 192,
                             .qk_rope_head_dim = 64,
                             .v_head_dim = 256}));
  EXPECT_EQ(std::get<DenseFeedForward>(model.layers[0].feed_forward), DenseFeedForward{10240});
  EXPECT_EQ(experts(model, 1).n_experts, 64);
}

TEST(HfConfig, DeepSeekV32IndexesEveryLayer) {
  const ModelSpec model = read("deepseek-ai--DeepSeek-V3.2");
  EXPECT_EQ(model.architecture, "deepseek32");
  EXPECT_EQ(n_with<LatentAttention>(model), 61);
  for (const LayerSpec& layer : model.layers) {
    EXPECT_EQ(std::get<LatentAttention>(layer.mixer).indexer, (Indexer{64, 128, 2048}));
  }
  ASSERT_EQ(model.extras.size(), 1U);
  EXPECT_EQ(model.extras[0].kind, "mtp");
  EXPECT_EQ(model.extras[0].n_layers, 1);
}

TEST(HfConfig, Glm52IndexesSomeLayersOnly) {
  const ModelSpec model = read("zai-org--GLM-5.2");
  EXPECT_EQ(model.architecture, "glm-dsa");
  const auto n = std::count_if(model.layers.begin(), model.layers.end(), [](const auto& layer) {
    return std::get<LatentAttention>(layer.mixer).indexer.has_value();
  });
  EXPECT_EQ(n, 21);  // of 78
}

TEST(HfConfig, GptOssAlternatesWindowsOf128) {
  const ModelSpec model = read("openai--gpt-oss-20b");
  EXPECT_EQ(windows(model, 128), ".G.G.G.G.G.G.G.G.G.G.G.G");
  EXPECT_TRUE(attention(model, 0).sinks);
  EXPECT_TRUE(attention(model, 0).output_bias);
  EXPECT_EQ(model.expert_dtype, DType::mxfp4);
  EXPECT_EQ(model.weight_dtype, std::nullopt);
}

TEST(HfConfig, Qwen3NextHasTwelveAttentionLayers) {
  const ModelSpec model = read("Qwen--Qwen3-Next-80B-A3B-Thinking");
  EXPECT_EQ(n_with<Attention>(model), 12);
  EXPECT_EQ(n_with<GatedDeltaNet>(model), 36);
  EXPECT_TRUE(std::holds_alternative<Attention>(model.layers[3].mixer));
  EXPECT_EQ(attention(model, 3).rope_dim, 64);  // a quarter of 256
  EXPECT_TRUE(attention(model, 3).output_gate);
}

// ---- Quirks ----------------------------------------------------------------------------------

TEST(HfConfigQuirks, InfinityIsReadThoughJsonHasNone) {
  for (const char* file :
       {"nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-FP8", "nvidia--Nemotron-H-56B-Base-8K"}) {
    EXPECT_NE(catalog::read_all(kConfigs + file + ".json").find("Infinity"), std::string::npos);
    EXPECT_GT(n_layers(read(file)), 80) << file;
  }
}

TEST(HfConfigQuirks, Gemma3LeavesHeadsAndVocabularyToItsClass) {
  const ModelSpec model = read("google--gemma-3-4b-it");
  EXPECT_EQ(model.architecture, "gemma3");
  EXPECT_EQ(model.vocab_size, 262208);
  EXPECT_EQ(model.trained_context_tokens, 131072);
  EXPECT_EQ(attention(model, 0).n_heads, 8);
  EXPECT_EQ(attention(model, 0).n_kv_heads, 4);
  EXPECT_EQ(attention(model, 0).head_dim, 256);
  EXPECT_EQ(windows(model, 1024), ".....G.....G.....G.....G.....G....");  // 5 global of 34
  EXPECT_EQ(model.extras.at(0).kind, "vision");
  EXPECT_EQ(model.extras.at(0).n_layers, 27);
}

TEST(HfConfigQuirks, MissingTieFlagsDefaultByClass) {
  for (const char* file :
       {"google--gemma-2-2b", "CohereLabs--aya-23-8B", "bigcode--starcoder2-7b"}) {
    EXPECT_EQ(catalog::read_all(kConfigs + file + ".json").find("tie_word_embeddings"),
              std::string::npos);
    EXPECT_TRUE(read(file).tied_embeddings) << file;
  }
  EXPECT_FALSE(read("ibm-granite--granite-4.1-8b").tied_embeddings);
}

TEST(HfConfigQuirks, ATieFlagMayStandOutsideTheTextConfig) {
  EXPECT_FALSE(read("Qwen--Qwen3-VL-8B-Instruct").tied_embeddings);
  EXPECT_TRUE(read("google--gemma-4-E2B-it").tied_embeddings);
}

TEST(HfConfigQuirks, Gemma2AlternatesByAConventionInNoFile) {
  EXPECT_EQ(windows(read("google--gemma-2-2b"), 4096), ".G.G.G.G.G.G.G.G.G.G.G.G.G");
}

TEST(HfConfigQuirks, NemotronUltraSpellsItsPatternInWords) {
  const ModelSpec words = read("nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16");
  EXPECT_EQ(n_layers(words), 108);  // num_hidden_layers is not in the file
  EXPECT_EQ(words.architecture, "nemotron_h_moe");
  EXPECT_EQ(n_with<Attention>(words) + n_with<Mamba2>(words) + n_with<NoMixer>(words), 108);
  EXPECT_TRUE(std::holds_alternative<Attention>(words.layers[7].mixer));
  EXPECT_EQ(experts(words, 1).latent_size, 2048);
  const ModelSpec letters = read("nvidia--NVIDIA-Nemotron-Nano-9B-v2");
  EXPECT_EQ(letters.architecture, "nemotron_h");
  EXPECT_EQ(n_with<Attention>(letters), 4);
}

TEST(HfConfigQuirks, NemotronsLayersHoldOnePartAndOneNorm) {
  for (const LayerSpec& layer : read("nvidia--NVIDIA-Nemotron-Nano-9B-v2").layers) {
    const bool mixes = !std::holds_alternative<NoMixer>(layer.mixer);
    EXPECT_EQ(mixes, std::holds_alternative<NoFeedForward>(layer.feed_forward));
    EXPECT_EQ(mixes, layer.pre_mixer_norm);
    EXPECT_EQ(!mixes, layer.pre_feed_forward_norm);
  }
}

TEST(HfConfigQuirks, Lfm2NamesItsAttentionLayersEitherWay) {
  const ModelSpec by_index = read("LiquidAI--LFM2-1.2B");
  EXPECT_EQ(windows(by_index, 0), "??G??G??G?G?G?G?");
  EXPECT_EQ(n_with<ShortConv>(by_index), 10);
  EXPECT_EQ(std::get<DenseFeedForward>(by_index.layers[0].feed_forward).intermediate_size, 8192);
  const ModelSpec by_type = read("LiquidAI--LFM2-8B-A1B");
  EXPECT_EQ(n_with<Attention>(by_type), 6);
  EXPECT_EQ(std::get<DenseFeedForward>(by_type.layers[1].feed_forward).intermediate_size, 7168);
  EXPECT_EQ(experts(by_type, 2).n_experts, 32);
}

TEST(HfConfigQuirks, StepCallsKvHeadsGroups) {
  const ModelSpec model = read("stepfun-ai--Step-3.5-Flash");
  EXPECT_EQ(attention(model, 0).n_heads, 64);
  EXPECT_EQ(attention(model, 0).n_kv_heads, 8);
  EXPECT_EQ(attention(model, 1).n_heads, 96);  // windowed layers have more query heads
  EXPECT_EQ(attention(model, 1).gate_width, 96);
  EXPECT_EQ(attention(model, 1).window_tokens, 512);
  EXPECT_TRUE(std::holds_alternative<DenseFeedForward>(model.layers[2].feed_forward));
  EXPECT_EQ(experts(model, 3).n_experts, 288);
}

TEST(HfConfigQuirks, StepListsItsExpertLayersAsText) {
  const std::string step = catalog::read_all(kConfigs + "stepfun-ai--Step-3.5-Flash.json");
  const ModelSpec model =
      read_hf_config_text(catalog::patched(step, R"({"moe_layers_enum": "1,44"})"), "x");
  EXPECT_TRUE(std::holds_alternative<DenseFeedForward>(model.layers[0].feed_forward));
  EXPECT_TRUE(std::holds_alternative<MixtureOfExperts>(model.layers[1].feed_forward));
  EXPECT_TRUE(std::holds_alternative<DenseFeedForward>(model.layers[43].feed_forward));
  EXPECT_TRUE(std::holds_alternative<MixtureOfExperts>(model.layers[44].feed_forward));
  try {
    (void)read_hf_config_text(catalog::patched(step, R"({"moe_layers_enum": "1,45"})"), "x");
    ADD_FAILURE() << "layer 45 of 45 accepted";
  } catch (const InputError& e) {
    EXPECT_STREQ(e.what(),
                 "x: \"moe_layers_enum\": \"1,45\" is not understood; layers from 0 to 44, "
                 "separated by commas");
  }
}

TEST(HfConfigQuirks, ErnieHasNamesOfItsOwnForExperts) {
  const ModelSpec model = read("baidu--ERNIE-4.5-21B-A3B-PT");
  EXPECT_EQ(model.architecture, "ernie4_5-moe");
  EXPECT_TRUE(std::holds_alternative<DenseFeedForward>(model.layers[0].feed_forward));
  EXPECT_EQ(experts(model, 1).n_experts, 64);
  EXPECT_EQ(experts(model, 1).n_experts_per_token, 6);
  EXPECT_EQ(experts(model, 1).shared_intermediate_size, 2 * 1536);
}

TEST(HfConfigQuirks, HunyuanListsItsExpertsLayerByLayer) {
  const ModelSpec model = read("tencent--Hunyuan-A13B-Instruct");
  EXPECT_EQ(experts(model, 31).n_experts_per_token, 8);
  EXPECT_EQ(experts(model, 31).intermediate_size, 3072);
  EXPECT_EQ(experts(model, 31).n_shared_experts, 1);
}

TEST(HfConfigQuirks, KimiLinearCountsLayersFromOne) {
  const ModelSpec model = read("moonshotai--Kimi-Linear-48B-A3B-Instruct");
  EXPECT_EQ(n_with<LatentAttention>(model), 7);
  EXPECT_EQ(n_with<KimiDeltaAttention>(model), 20);
  EXPECT_TRUE(std::holds_alternative<LatentAttention>(model.layers[3].mixer));   // "4"
  EXPECT_TRUE(std::holds_alternative<LatentAttention>(model.layers[26].mixer));  // "27"
  EXPECT_EQ(experts(model, 1).n_experts_per_token, 8);  // num_experts_per_token
}

TEST(HfConfigQuirks, ExaonePatternIsAString) {
  nlohmann::json config =
      nlohmann::json::parse(catalog::read_all(kConfigs + "LGAI-EXAONE--EXAONE-4.0-32B.json"));
  const std::string by_list = windows(read_hf_config_text(config.dump(), "x"), 4096);
  EXPECT_EQ(by_list.substr(0, 12), "...G...G...G");
  config.erase("layer_types");
  EXPECT_EQ(windows(read_hf_config_text(config.dump(), "x"), 4096), by_list);
}

TEST(HfConfigQuirks, NemotronSuperSaysBlockByBlockWhatIsLeft) {
  const ModelSpec model = read("nvidia--Llama-3_3-Nemotron-Super-49B-v1");
  EXPECT_EQ(model.architecture, "deci");
  EXPECT_EQ(n_layers(model), 80);
  EXPECT_EQ(n_with<NoMixer>(model), 31);
  EXPECT_EQ(attention(model, 0).n_kv_heads, 8);
  EXPECT_EQ(std::get<DenseFeedForward>(model.layers[0].feed_forward).intermediate_size, 14336);
}

TEST(HfConfigQuirks, ChatGlmCarriesMeaninglessUsualNames) {
  const ModelSpec model = read("THUDM--glm-4-9b-chat");
  EXPECT_EQ(model.vocab_size, 151552);           // vocab_size says 32000
  EXPECT_EQ(attention(model, 0).n_kv_heads, 2);  // num_key_value_heads says true
  EXPECT_EQ(std::get<DenseFeedForward>(model.layers[0].feed_forward).intermediate_size, 13696);
}

TEST(HfConfigQuirks, StateSpacesFilesHaveAFormatOfTheirOwn) {
  const ModelSpec one = read("state-spaces--mamba-2.8b-slimpj");
  EXPECT_EQ(one.architecture, "mamba");
  EXPECT_EQ(one.vocab_size, 50280);  // 50277, padded to 8
  EXPECT_EQ(std::get<Mamba>(one.layers[0].mixer), (Mamba{5120, 16, 4, 160}));
  const ModelSpec two = read("state-spaces--mamba2-2.7b");
  EXPECT_EQ(two.architecture, "mamba2");
  EXPECT_EQ(two.vocab_size, 50288);  // padded to 16
  EXPECT_EQ(std::get<Mamba2>(two.layers[0].mixer).n_heads, 80);
}

TEST(HfConfigQuirks, HeadWidthNeedNotDivideTheModel) {
  const ModelSpec model = read("ByteDance-Seed--Seed-OSS-36B-Instruct");
  const Attention& a = attention(model, 0);
  EXPECT_EQ(a.n_heads * a.head_dim, 2 * 5120);
}

TEST(HfConfigQuirks, MimoHasOtherHeadsAndWidthsInWindows) {
  const ModelSpec model = read("XiaomiMiMo--MiMo-V2-Flash");
  EXPECT_EQ(attention(model, 0).n_kv_heads, 4);
  EXPECT_EQ(attention(model, 0).head_dim, 192);
  EXPECT_EQ(attention(model, 0).v_head_dim, 128);
  EXPECT_FALSE(attention(model, 0).sinks);
  EXPECT_EQ(attention(model, 1).n_kv_heads, 8);
  EXPECT_EQ(attention(model, 1).window_tokens, 128);
  EXPECT_TRUE(attention(model, 1).sinks);
}

TEST(HfConfigQuirks, LagunaHasHeadsByTheLayer) {
  const ModelSpec model = read("poolside--Laguna-S-2.1-FP8");
  EXPECT_EQ(attention(model, 0).n_heads, 48);
  EXPECT_EQ(attention(model, 1).n_heads, 72);
  EXPECT_EQ(model.weight_dtype, DType::f8_e4m3);
}

TEST(HfConfigQuirks, Gemma3nSharesTheCacheOfItsLastOwnLayersOfEachKind) {
  const ModelSpec model = read("google--gemma-3n-E4B-it");
  EXPECT_EQ(n_with<SharedAttention>(model), 15);
  EXPECT_EQ(windows(model, 512), "....G....G....G....G....G....G....G");
  EXPECT_EQ(std::get<SharedAttention>(model.layers[20].mixer).with_layer, 18);  // windowed
  EXPECT_EQ(std::get<SharedAttention>(model.layers[24].mixer).with_layer, 19);  // global
  EXPECT_EQ(model.per_layer_embedding_size, 256);
  EXPECT_EQ(model.altup_inputs, 4);
}

TEST(HfConfigQuirks, Gemma4sGlobalLayersAreWiderAndReuseKAsV) {
  const ModelSpec model = read("google--gemma-4-26B-A4B");
  EXPECT_EQ(attention(model, 0).head_dim, 256);
  EXPECT_EQ(attention(model, 0).n_kv_heads, 8);
  EXPECT_FALSE(attention(model, 0).v_is_k);
  EXPECT_EQ(attention(model, 5).head_dim, 512);
  EXPECT_EQ(attention(model, 5).n_kv_heads, 2);
  EXPECT_TRUE(attention(model, 5).v_is_k);
  EXPECT_EQ(experts(model, 0).dense_intermediate_size, 2112);
  const ModelSpec small = read("google--gemma-4-E2B-it");
  EXPECT_EQ(n_with<SharedAttention>(small), 20);
  EXPECT_EQ(std::get<DenseFeedForward>(small.layers[14].feed_forward).intermediate_size, 6144);
  EXPECT_EQ(std::get<DenseFeedForward>(small.layers[15].feed_forward).intermediate_size, 12288);
}

TEST(HfConfigQuirks, Llama4ChunksThreeLayersOfFour) {
  const ModelSpec model = read("meta-llama--Llama-4-Maverick-17B-128E-Instruct");
  EXPECT_EQ(windows(model, 8192).substr(0, 8), "...G...G");
  EXPECT_EQ(attention(model, 0).window_kind, WindowKind::chunked);
  EXPECT_EQ(attention(model, 3).rope_dim, 0);
  EXPECT_TRUE(std::holds_alternative<DenseFeedForward>(model.layers[0].feed_forward));
  EXPECT_EQ(experts(model, 1).shared_intermediate_size, 8192);
}

TEST(HfConfigQuirks, MiniMaxM3KeepsIndexKeysBesideKAndV) {
  const ModelSpec model = read("MiniMaxAI--MiniMax-M3");
  EXPECT_FALSE(attention(model, 2).indexer);
  EXPECT_EQ(attention(model, 3).indexer, (Indexer{4, 128, 16 * 128}));
}

TEST(HfConfigQuirks, ScalesAndCapsAreRead) {
  const ModelSpec gemma = read("google--gemma-2-9b");
  EXPECT_DOUBLE_EQ(gemma.embedding_scale, 59.866518188383063);  // sqrt(3584)
  EXPECT_TRUE(gemma.logit_softcap);
  EXPECT_TRUE(gemma.attention_softcap);
  EXPECT_EQ(read("CohereLabs--aya-23-8B").logit_scale, 0.0625);
  EXPECT_EQ(read("meta-llama--Llama-3.1-8B").rotary_factors, RotaryFactors::one);
  EXPECT_EQ(read("meta-llama--Meta-Llama-3-8B").rotary_factors, RotaryFactors::none);
  EXPECT_EQ(read("microsoft--Phi-4-mini-instruct").rotary_factors, RotaryFactors::long_and_short);
  const ModelSpec phi = read("microsoft--Phi-4-mini-instruct");
  EXPECT_EQ(attention(phi, 0).rope_dim, 96);
}

TEST(HfConfigQuirks, PublishedActiveCountsAreMet) {
  // Totals and active counts as in the makers' names: A3B, A22B, A32B-class, A2.7B.
  const auto active = [](const char* file) {
    return static_cast<double>(count_parameters(read(file)).active) / 1e9;
  };
  EXPECT_NEAR(active("Qwen--Qwen3-30B-A3B"), 3.35, 0.05);  // 3.3 in the model card
  EXPECT_NEAR(active("Qwen--Qwen3-235B-A22B"), 22.0, 0.3);
  EXPECT_NEAR(active("openai--gpt-oss-20b"), 4.2, 0.1);  // 3.6 without the embedding
  EXPECT_NEAR(active("mistralai--Mixtral-8x7B-v0.1"), 12.9, 0.1);
}

}  // namespace
}  // namespace kvfathom
