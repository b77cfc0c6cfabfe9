#include "model/architecture/tensor_inventory.h"

#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

namespace kvfathom {
namespace {

/// "name 4096,128256,1 matrix", one per tensor, by name.
using Listing = std::map<std::string, std::string>;

std::string shape_text(const std::array<std::int64_t, 4>& shape) {
  std::string text;
  for (const std::int64_t n : shape) {
    text += std::to_string(n) + ",";
  }
  return text;
}

Listing listing_of(const std::vector<Tensor>& tensors) {
  Listing listing;
  for (const Tensor& t : tensors) {
    const auto [at, is_new] =
        listing.emplace(t.name, shape_text(t.shape) + (t.dtype == DType::f32 ? " f32" : " matrix"));
    EXPECT_TRUE(is_new) << "twice: " << at->first;
  }
  return listing;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) {
    parts.push_back(part);
  }
  return parts;
}

/// Reads a folded listing: "0-2,4<tab>attn_q.weight<tab>2048,2048<tab>matrix".
Listing read_listing(const std::string& preset) {
  std::ifstream file(std::string(KVFATHOM_SOURCE_DIR) + "/tests/data/inventory/" + preset + ".tsv");
  EXPECT_TRUE(file.is_open()) << preset;
  Listing listing;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) {
      continue;
    }
    const std::vector<std::string> columns = split(line, '\t');
    std::array<std::int64_t, 4> shape{1, 1, 1, 1};
    std::size_t axis = 0;
    for (const std::string& n : split(columns.at(2), ',')) {
      shape.at(axis++) = std::stoll(n);
    }
    const std::string value = shape_text(shape) + " " + columns.at(3);
    if (columns.at(0) == "-") {
      listing[columns.at(1)] = value;
      continue;
    }
    for (const std::string& range : split(columns.at(0), ',')) {
      const std::vector<std::string> ends = split(range, '-');
      for (int i = std::stoi(ends.front()); i <= std::stoi(ends.back()); ++i) {
        listing["blk." + std::to_string(i) + "." + columns.at(1)] = value;
      }
    }
  }
  return listing;
}

void expect_same(const ModelSpec& model, const std::string& preset) {
  const Listing expected = read_listing(preset);
  const Listing got = listing_of(tensor_inventory(model));
  EXPECT_GT(expected.size(), 100U);
  for (const auto& [name, value] : expected) {
    const auto at = got.find(name);
    EXPECT_EQ(at == got.end() ? "missing" : at->second, value) << name;
  }
  for (const auto& [name, value] : got) {
    EXPECT_TRUE(expected.contains(name)) << "not expected: " << name << " " << value;
  }
}

Attention heads(std::int64_t n_heads, std::int64_t n_kv_heads, std::int64_t head_dim) {
  return {.n_heads = n_heads,
          .n_kv_heads = n_kv_heads,
          .head_dim = head_dim,
          .v_head_dim = head_dim,
          .rope_dim = head_dim};
}

LayerSpec layer_of(const Mixer& mixer, const FeedForward& ff) {
  LayerSpec layer;
  layer.mixer = mixer;
  layer.feed_forward = ff;
  return layer;
}

ModelSpec model_of(const char* architecture,
                   std::int64_t hidden,
                   std::int64_t vocab,
                   std::size_t n_layers,
                   const LayerSpec& layer) {
  ModelSpec model;
  model.architecture = architecture;
  model.hidden_size = hidden;
  model.vocab_size = vocab;
  model.layers.assign(n_layers, layer);
  return model;
}

TEST(TensorInventory, LlamaWithRotaryFactors) {
  ModelSpec model =
      model_of("llama", 4096, 128256, 32, layer_of(heads(32, 8, 128), DenseFeedForward{14336}));
  model.rotary_factors = RotaryFactors::one;
  expect_same(model, "llama-3.1-8b");
}

TEST(TensorInventory, MixtralIsALlamaWithExperts) {
  const MixtureOfExperts moe{.n_experts = 8, .n_experts_per_token = 2, .intermediate_size = 14336};
  expect_same(model_of("llama", 4096, 32000, 32, layer_of(heads(32, 8, 128), moe)), "mixtral-8x7b");
}

TEST(TensorInventory, Qwen2HasBiasesAndTiedEmbeddings) {
  Attention attention = heads(14, 2, 64);
  attention.bias = true;
  ModelSpec model = model_of("qwen2", 896, 151936, 24, layer_of(attention, DenseFeedForward{4864}));
  model.tied_embeddings = true;
  expect_same(model, "qwen2.5-0.5b");
}

TEST(TensorInventory, Qwen3NormsEachHead) {
  Attention attention = heads(32, 4, 128);
  attention.qk_norm = QkNorm::per_head;
  const MixtureOfExperts moe{.n_experts = 128, .n_experts_per_token = 8, .intermediate_size = 768};
  expect_same(model_of("qwen3moe", 2048, 151936, 48, layer_of(attention, moe)), "qwen3-30b-a3b");
}

TEST(TensorInventory, Gemma3HasFourNormsALayer) {
  Attention attention = heads(8, 4, 256);
  attention.qk_norm = QkNorm::per_head;
  LayerSpec layer = layer_of(attention, DenseFeedForward{10240});
  layer.post_mixer_norm = true;
  layer.post_feed_forward_norm = true;
  ModelSpec model = model_of("gemma3", 2560, 262144, 34, layer);
  model.tied_embeddings = true;
  expect_same(model, "gemma-3-4b");
}

TEST(TensorInventory, GptOssHasSinksAndExpertBiases) {
  Attention attention = heads(64, 8, 64);
  attention.bias = true;
  attention.output_bias = true;
  attention.sinks = true;
  const MixtureOfExperts moe{
      .n_experts = 32, .n_experts_per_token = 4, .intermediate_size = 2880, .bias = true};
  expect_same(model_of("gpt-oss", 2880, 201088, 24, layer_of(attention, moe)), "gpt-oss-20b");
}

TEST(TensorInventory, Phi3FusesQkvAndGateUp) {
  expect_same(
      model_of("phi3", 5120, 100352, 40, layer_of(heads(40, 10, 128), DenseFeedForward{17920})),
      "phi-4");
}

LatentAttention glm_flash_attention() {
  return {.n_heads = 20,
          .q_lora_rank = 768,
          .kv_lora_rank = 512,
          .qk_nope_head_dim = 192,
          .qk_rope_head_dim = 64,
          .v_head_dim = 256};
}

TEST(TensorInventory, LatentAttentionIsSplit) {
  const MixtureOfExperts moe{.n_experts = 64,
                             .n_experts_per_token = 4,
                             .n_shared_experts = 1,
                             .intermediate_size = 1536,
                             .shared_intermediate_size = 1536,
                             .router_bias = true};
  ModelSpec model = model_of("deepseek2", 2048, 154880, 47, layer_of(glm_flash_attention(), moe));
  model.layers[0].feed_forward = DenseFeedForward{10240};
  expect_same(model, "glm-4.7-flash");
}

TEST(TensorInventory, LatentAttentionWithoutQueryRank) {
  const LatentAttention attention{.n_heads = 16,
                                  .kv_lora_rank = 512,
                                  .qk_nope_head_dim = 128,
                                  .qk_rope_head_dim = 64,
                                  .v_head_dim = 128};
  const MixtureOfExperts moe{.n_experts = 64,
                             .n_experts_per_token = 6,
                             .n_shared_experts = 2,
                             .intermediate_size = 1408,
                             .shared_intermediate_size = 2816};
  ModelSpec model = model_of("deepseek2", 2048, 102400, 27, layer_of(attention, moe));
  model.layers[0].feed_forward = DenseFeedForward{10944};
  expect_same(model, "deepseek-v2-lite");
}

TEST(TensorInventory, Mamba2HasOneNormALayer) {
  LayerSpec layer =
      layer_of(Mamba2{.d_inner = 5120, .d_state = 128, .d_conv = 4, .n_heads = 80, .n_groups = 1},
               NoFeedForward{});
  layer.pre_feed_forward_norm = false;
  ModelSpec model = model_of("mamba2", 2560, 50288, 64, layer);
  model.tied_embeddings = true;
  expect_same(model, "mamba2-2.7b");
}

TEST(TensorInventory, FalconH1HoldsBothMixersInEachLayer) {
  const Mamba2 mamba{.d_inner = 3072,
                     .d_state = 256,
                     .d_conv = 4,
                     .n_heads = 24,
                     .n_groups = 1,
                     .conv_bias = true,
                     .norm = false};
  const ParallelMixers both{heads(12, 2, 128), mamba};
  expect_same(model_of("falcon-h1", 3072, 130049, 44, layer_of(both, DenseFeedForward{12288})),
              "falcon-h1-7b");
}

TEST(TensorInventory, GraniteHybridMixesLayers) {
  const MixtureOfExperts moe{.n_experts = 64,
                             .n_experts_per_token = 6,
                             .n_shared_experts = 1,
                             .intermediate_size = 512,
                             .shared_intermediate_size = 1024};
  const Mamba2 mamba{.d_inner = 3072, .d_state = 128, .d_conv = 4, .n_heads = 48, .n_groups = 1};
  ModelSpec model = model_of("granitehybrid", 1536, 100352, 40, layer_of(mamba, moe));
  for (const std::size_t i : {5U, 15U, 25U, 35U}) {
    model.layers[i].mixer = heads(12, 4, 128);
  }
  model.tied_embeddings = true;
  expect_same(model, "granite-4.0-h-tiny");
}

TEST(TensorInventory, Qwen3NextGatesItsAttention) {
  Attention attention = heads(16, 2, 256);
  attention.qk_norm = QkNorm::per_head;
  attention.output_gate = true;
  const GatedDeltaNet delta{
      .n_k_heads = 16, .n_v_heads = 32, .k_head_dim = 128, .v_head_dim = 128, .d_conv = 4};
  const MixtureOfExperts moe{.n_experts = 512,
                             .n_experts_per_token = 10,
                             .n_shared_experts = 1,
                             .intermediate_size = 512,
                             .shared_intermediate_size = 512,
                             .shared_expert_gate = true};
  ModelSpec model = model_of("qwen3next", 2048, 151936, 48, layer_of(delta, moe));
  for (std::size_t i = 3; i < 48; i += 4) {
    model.layers[i].mixer = attention;
  }
  expect_same(model, "qwen3-next-80b-a3b");
}

TEST(TensorInventory, MatricesTakeTheModelsOwnType) {
  ModelSpec model =
      model_of("llama", 256, 512, 1, layer_of(heads(4, 4, 64), DenseFeedForward{512}));
  EXPECT_EQ(tensor_inventory(model).front().dtype, DType::bf16);
  model.weight_dtype = DType::f16;
  EXPECT_EQ(tensor_inventory(model).front().dtype, DType::f16);
}

}  // namespace
}  // namespace kvfathom
