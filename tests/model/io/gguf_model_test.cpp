// Models read from headers of real shape: weights against what llama.cpp allocates, tensors
// against the inventory made from the spec alone, layers against the published configurations.
#include "model/io/gguf_model.h"

#include <cctype>
#include <cmath>
#include <map>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"

namespace kvfathom {
namespace {

ModelSpec read(const std::string& name) {
  return read_gguf(std::string(KVFATHOM_SOURCE_DIR "/tests/data/gguf/") + name + ".gguf");
}

std::int64_t weight_bytes(const ModelSpec& model) {
  std::int64_t bytes = 0;
  for (const Tensor& tensor : model.tensors) {
    bytes += data_bytes(tensor);
  }
  return bytes;
}

std::int64_t n_parameters(const ModelSpec& model) {
  std::int64_t n = 0;
  for (const Tensor& tensor : model.tensors) {
    n += n_elements(tensor);
  }
  return n;
}

template <class M>
const M& mixer(const ModelSpec& model, std::size_t layer) {
  return std::get<M>(model.layers.at(layer).mixer);
}

struct File {
  const char* name;
  std::int64_t weight_bytes;  ///< of llama.cpp 0.5.0's CPU buffers for this file (0: not logged)
  std::size_t n_layers;
};

class GgufFiles : public ::testing::TestWithParam<File> {};

TEST_P(GgufFiles, WeighWhatTheEngineAllocates) {
  const ModelSpec model = read(GetParam().name);
  EXPECT_EQ(weight_bytes(model), GetParam().weight_bytes);
  EXPECT_EQ(model.layers.size(), GetParam().n_layers);
}

// The inventory knows nothing of the file: where both agree to the last tensor, the spec says all.
TEST_P(GgufFiles, HoldTheTensorsThatTheirSpecImplies) {
  const ModelSpec model = read(GetParam().name);
  const auto shapes = [](const std::vector<Tensor>& tensors) {
    std::map<std::string, std::array<std::int64_t, 4>> by_name;
    for (const Tensor& tensor : tensors) {
      by_name[tensor.name] = tensor.shape;
    }
    return by_name;
  };
  EXPECT_EQ(shapes(model.tensors), shapes(tensor_inventory(model)));
}

INSTANTIATE_TEST_SUITE_P(Headers,
                         GgufFiles,
                         ::testing::Values(File{"deepseek-v2-lite", 31420037120, 27},
                                           File{"gemma-3-4b", 7760934912, 34},
                                           File{"glm-4.7-flash", 59899361792, 47},
                                           File{"gpt-oss-20b", 10152345600 + 1944212736, 24},
                                           File{"granite-4.0-h-tiny", 13887617280, 40},
                                           File{"llama-3.1-8b", 16061055232, 32},
                                           File{"mamba2-2.7b", 5409658880, 64},
                                           File{"mistral-7b-v0.3", 14496579584, 32},
                                           File{"qwen2.5-0.5b", 988208640, 24},
                                           File{"qwen3-30b-a3b", 61089832960, 48}),
                         [](const auto& file) {
                           std::string name = file.param.name;
                           std::erase_if(name, [](char c) {
                             return std::isalnum(static_cast<unsigned char>(c)) == 0;
                           });
                           return name;
                         });

TEST(GgufModel, Llama31) {
  const ModelSpec model = read("llama-3.1-8b");
  EXPECT_EQ(model.architecture, "llama");
  EXPECT_EQ(model.name, "llama-3.1-8b (synthetic)");
  EXPECT_EQ(model.hidden_size, 4096);
  EXPECT_EQ(model.vocab_size, 128256);
  EXPECT_EQ(model.trained_context_tokens, 131072);
  EXPECT_FALSE(model.tied_embeddings);
  EXPECT_EQ(model.norm, NormKind::rms);
  EXPECT_EQ(model.rotary_factors, RotaryFactors::one);
  EXPECT_NEAR(static_cast<double>(n_parameters(model)), 8.03e9, 5e6);  // published: 8.03 B
  const Attention expected{
      .n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .v_head_dim = 128, .rope_dim = 128};
  for (const LayerSpec& layer : model.layers) {
    EXPECT_EQ(std::get<Attention>(layer.mixer), expected);
    EXPECT_EQ(layer.feed_forward, FeedForward(DenseFeedForward{.intermediate_size = 14336}));
    EXPECT_TRUE(layer.pre_mixer_norm && layer.pre_feed_forward_norm);
    EXPECT_FALSE(layer.post_mixer_norm || layer.post_feed_forward_norm);
  }
}

TEST(GgufModel, TiedAndBiased) {
  const ModelSpec model = read("qwen2.5-0.5b");
  EXPECT_TRUE(model.tied_embeddings);
  const Attention expected{.n_heads = 14,
                           .n_kv_heads = 2,
                           .head_dim = 64,
                           .v_head_dim = 64,
                           .bias = true,
                           .rope_dim = 64};
  EXPECT_EQ(mixer<Attention>(model, 23), expected);
}

TEST(GgufModel, LatentAttention) {
  const ModelSpec model = read("glm-4.7-flash");
  const LatentAttention expected{.n_heads = 20,
                                 .q_lora_rank = 768,
                                 .kv_lora_rank = 512,
                                 .qk_nope_head_dim = 192,
                                 .qk_rope_head_dim = 64,
                                 .v_head_dim = 256};
  EXPECT_EQ(mixer<LatentAttention>(model, 0), expected);
  EXPECT_EQ(mixer<LatentAttention>(model, 46), expected);
  EXPECT_EQ(model.layers[0].feed_forward,
            FeedForward(DenseFeedForward{.intermediate_size = 10240}));
  const MixtureOfExperts experts{.n_experts = 64,
                                 .n_experts_per_token = 4,
                                 .n_shared_experts = 1,
                                 .intermediate_size = 1536,
                                 .shared_intermediate_size = 1536,
                                 .router_bias = true,
                                 .gating = ExpertGating::sigmoid,
                                 .weights_scale = static_cast<double>(1.8F)};
  EXPECT_EQ(model.layers[1].feed_forward, FeedForward(experts));
  EXPECT_TRUE(model.extras.empty());
  // DeepSeek-V2-Lite projects q directly and has two shared experts in one.
  const ModelSpec lite = read("deepseek-v2-lite");
  EXPECT_EQ(mixer<LatentAttention>(lite, 3).q_lora_rank, 0);
  const auto& shared = std::get<MixtureOfExperts>(lite.layers[3].feed_forward);
  EXPECT_EQ(shared.n_shared_experts, 2);
  EXPECT_EQ(shared.shared_intermediate_size, 2 * 1408);
}

TEST(GgufModel, MultiTokenPredictionIsBehindTheDecoder) {
  const ModelSpec model = read("glm-4.7-flash-mtp");
  EXPECT_EQ(model.layers, read("glm-4.7-flash").layers);
  ASSERT_EQ(model.extras.size(), 1);
  EXPECT_EQ(model.extras[0].kind, "mtp");
  EXPECT_EQ(model.extras[0].n_layers, 1);
  EXPECT_EQ(model.extras[0].n_parameters,
            n_parameters(model) - n_parameters(read("glm-4.7-flash")));
}

TEST(GgufModel, WithoutTheMlaKeysEveryHeadIsCached) {
  const ModelSpec model = read("deepseek-v2-lite-nomla");
  const Attention expected{.n_heads = 16,
                           .n_kv_heads = 16,
                           .head_dim = 192,
                           .v_head_dim = 128,
                           .rope_dim = 64,
                           .kv_lora_rank = 512};
  EXPECT_EQ(mixer<Attention>(model, 0), expected);
  EXPECT_EQ(n_parameters(model), n_parameters(read("deepseek-v2-lite")));
}

TEST(GgufModel, WindowsInFiveOfSixLayers) {
  const ModelSpec model = read("gemma-3-4b");
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const auto& a = mixer<Attention>(model, i);
    EXPECT_EQ(a.window_tokens, i % 6 == 5 ? std::nullopt : std::optional<std::int64_t>(1024)) << i;
    EXPECT_EQ(a.qk_norm, QkNorm::per_head);
  }
  EXPECT_TRUE(model.layers[0].post_mixer_norm && model.layers[0].post_feed_forward_norm);
  EXPECT_DOUBLE_EQ(model.embedding_scale, std::sqrt(2560.0));
  EXPECT_FALSE(model.logit_softcap || model.attention_softcap);
}

TEST(GgufModel, SinksBiasesAndAlternatingWindows) {
  const ModelSpec model = read("gpt-oss-20b");
  const auto& windowed = mixer<Attention>(model, 0);
  EXPECT_EQ(windowed.window_tokens, 128);
  EXPECT_TRUE(windowed.sinks && windowed.bias && windowed.output_bias);
  EXPECT_EQ(mixer<Attention>(model, 1).window_tokens, std::nullopt);
  const MixtureOfExperts experts{
      .n_experts = 32, .n_experts_per_token = 4, .intermediate_size = 2880, .bias = true};
  EXPECT_EQ(model.layers[0].feed_forward, FeedForward(experts));
  // Its norm after attention is the one before the feed-forward.
  EXPECT_TRUE(model.layers[0].pre_feed_forward_norm);
  EXPECT_FALSE(model.layers[0].post_mixer_norm);
}

TEST(GgufModel, StateBetweenAttention) {
  const ModelSpec model = read("granite-4.0-h-tiny");
  for (const std::size_t i : {5U, 15U, 25U, 35U}) {
    EXPECT_EQ(mixer<Attention>(model, i).n_kv_heads, 4) << i;
    EXPECT_EQ(mixer<Attention>(model, i).rope_dim, 0) << i;
  }
  const Mamba2 expected{.d_inner = 3072,
                        .d_state = 128,
                        .d_conv = 4,
                        .n_heads = 48,
                        .n_groups = 1,
                        .conv_bias = true,
                        .norm = true};
  EXPECT_EQ(mixer<Mamba2>(model, 0), expected);
  EXPECT_EQ(mixer<Mamba2>(model, 39), expected);
  const auto& experts = std::get<MixtureOfExperts>(model.layers[0].feed_forward);
  EXPECT_EQ(experts.n_shared_experts, 1);
  EXPECT_EQ(experts.shared_intermediate_size, 1024);
}

TEST(GgufModel, StateOnly) {
  const ModelSpec model = read("mamba2-2.7b");
  EXPECT_EQ(mixer<Mamba2>(model, 0).d_inner, 5120);
  EXPECT_EQ(model.layers[0].feed_forward, FeedForward(NoFeedForward{}));
  EXPECT_FALSE(model.layers[0].pre_feed_forward_norm);
}

TEST(GgufModel, StateBesideAttention) {
  const ModelSpec model = read("falcon-h1-7b");
  const auto& both = mixer<ParallelMixers>(model, 43);
  EXPECT_EQ(both.attention.n_kv_heads, 2);
  EXPECT_FALSE(both.mamba2.norm);
  EXPECT_TRUE(model.layers[43].pre_feed_forward_norm);  // its tensor lacks ".weight"
}

TEST(GgufModel, GatedDeltaNetThreeOfFour) {
  const ModelSpec model = read("qwen3-next-80b-a3b");
  const GatedDeltaNet expected{
      .n_k_heads = 16, .n_v_heads = 32, .k_head_dim = 128, .v_head_dim = 128, .d_conv = 4};
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    if (i % 4 == 3) {
      EXPECT_TRUE(mixer<Attention>(model, i).output_gate) << i;
    } else {
      EXPECT_EQ(mixer<GatedDeltaNet>(model, i), expected) << i;
    }
  }
  EXPECT_TRUE(std::get<MixtureOfExperts>(model.layers[0].feed_forward).shared_expert_gate);
}

}  // namespace
}  // namespace kvfathom
