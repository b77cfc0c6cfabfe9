// Every architecture on a small model of its own, against what its configuration class and
// llama.cpp's loader say about it.
#include "model/io/gguf_architectures.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/model/io/tiny_gguf.h"

namespace kvfathom {
namespace {

using testing::attention;
using testing::kinds;
using testing::TinyGguf;
using Windows = std::vector<std::int64_t>;  // by layer; 0: none

Windows windows(const ModelSpec& model) {
  Windows windows;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    windows.push_back(attention(model, i).window_tokens.value_or(0));
  }
  return windows;
}

std::vector<std::int64_t> rope_dims(const ModelSpec& model) {
  std::vector<std::int64_t> dims;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    dims.push_back(attention(model, i).rope_dim);
  }
  return dims;
}

TEST(GgufArchitectures, EveryPlainOneReadsAPlainModel) {
  int n = 0;
  for (const GgufArchitecture& row : gguf_architectures()) {
    const bool plain = row.recurrent == GgufRecurrent::none &&
                       row.attention == GgufAttention::plain &&
                       row.windows.layers == GgufWindowLayers::all;
    if (!plain) {
      continue;
    }
    ++n;
    SCOPED_TRACE(row.name);
    const ModelSpec model = TinyGguf(std::string(row.name)).plain_layers().read();
    EXPECT_EQ(model.architecture, row.name);
    const Attention expected{.n_heads = 4,
                             .n_kv_heads = 2,
                             .head_dim = 16,
                             .v_head_dim = 16,
                             .rope_dim = row.rope == GgufRope::none ? 0 : 16};
    EXPECT_EQ(attention(model, 0), expected);
    EXPECT_EQ(model.layers[7].feed_forward, FeedForward(DenseFeedForward{.intermediate_size = 96}));
    EXPECT_EQ(windows(model), Windows(8, 0));
    EXPECT_FALSE(model.layers[0].parallel_residual);  // it has two norms
  }
  EXPECT_GT(n, 30);
}

struct WindowCase {
  std::string architecture;
  Windows windows;
};

class WindowsOf : public ::testing::TestWithParam<WindowCase> {};

// Patterns: the published configurations (gemma-2, gemma-3, Command R7B, OLMo-3, gpt-oss).
TEST_P(WindowsOf, FollowTheArchitecture) {
  TinyGguf file(GetParam().architecture);
  file.plain_layers().u32("attention.sliding_window", 512);
  EXPECT_EQ(windows(file.read()), GetParam().windows);
}

INSTANTIATE_TEST_SUITE_P(
    Patterns,
    WindowsOf,
    ::testing::Values(WindowCase{"gemma2", {512, 0, 512, 0, 512, 0, 512, 0}},
                      WindowCase{"gpt-oss", {512, 0, 512, 0, 512, 0, 512, 0}},
                      WindowCase{"gemma3", {512, 512, 512, 512, 512, 0, 512, 512}},
                      WindowCase{"gemma3n", {512, 512, 512, 512, 0, 512, 512, 512}},
                      WindowCase{"cohere2", {512, 512, 512, 0, 512, 512, 512, 0}},
                      WindowCase{"olmo2", {512, 512, 512, 0, 512, 512, 512, 0}},
                      WindowCase{"exaone4", {512, 512, 512, 0, 512, 512, 512, 0}},
                      WindowCase{"smallthinker", {0, 4096, 4096, 4096, 0, 4096, 4096, 4096}},
                      WindowCase{"llama4", {8192, 8192, 8192, 0, 8192, 8192, 8192, 0}},
                      // What the model is; that llama.cpp leaves these unused is its policy's.
                      WindowCase{"llama", Windows(8, 512)},
                      WindowCase{"phi3", Windows(8, 512)}),
    [](const auto& row) {
      std::string name = row.param.architecture;
      std::erase(name, '-');
      return name;
    });

TEST(GgufArchitectures, ThePatternInTheFileComesFirst) {
  const Windows expected{0, 512, 0, 0, 512, 512, 0, 512};
  const std::vector<int> flags{0, 1, 0, 0, 1, 1, 0, 1};
  for (const std::string name : {"gemma3", "olmo2", "gemma4", "mimo2", "granite_swa"}) {
    TinyGguf file(name);
    file.plain_layers().u32("attention.sliding_window", 512);
    file.booleans("attention.sliding_window_pattern", flags);
    EXPECT_EQ(windows(file.read()), expected) << name;
  }
  TinyGguf file("gemma3");  // a number is the period
  file.plain_layers().u32("attention.sliding_window", 512);
  file.u32("attention.sliding_window_pattern", 4);
  EXPECT_EQ(windows(file.read()), (Windows{512, 512, 512, 0, 512, 512, 512, 0}));
  file.u32("attention.sliding_window_pattern", 0);
  EXPECT_EQ(windows(file.read()), Windows(8, 512));
  file.u32("attention.sliding_window_pattern", 1);
  EXPECT_EQ(windows(file.read()), Windows(8, 0));
}

TEST(GgufArchitectures, WindowsThatNeedNoKeyOrHaveNone) {
  EXPECT_EQ(windows(TinyGguf("gemma2").plain_layers().read())[0], 4096);
  EXPECT_EQ(windows(TinyGguf("gemma3").plain_layers().read()), Windows(8, 0));
  TinyGguf zero("gemma3");
  zero.plain_layers().u32("attention.sliding_window", 0);
  EXPECT_EQ(windows(zero.read()), Windows(8, 0));
}

TEST(GgufArchitectures, Llama4ChunksAndRotatesThreeOfFour) {
  const ModelSpec model = TinyGguf("llama4").plain_layers().read();
  EXPECT_EQ(attention(model, 0).window_kind, WindowKind::chunked);
  EXPECT_EQ(rope_dims(model), (std::vector<std::int64_t>{16, 16, 16, 0, 16, 16, 16, 0}));
  TinyGguf whole("llama4");
  whole.plain_layers().u32("attention.sliding_window", 0);
  EXPECT_EQ(windows(whole.read()), Windows(8, 0));
  EXPECT_EQ(rope_dims(whole.read()), std::vector<std::int64_t>(8, 16));
}

TEST(GgufArchitectures, LayersWithoutRotation) {
  TinyGguf cohere("cohere2");
  cohere.plain_layers().u32("attention.sliding_window", 512);
  EXPECT_EQ(rope_dims(cohere.read()), (std::vector<std::int64_t>{16, 16, 16, 0, 16, 16, 16, 0}));
  EXPECT_EQ(rope_dims(TinyGguf("exaone4").plain_layers().read()), std::vector<std::int64_t>(8, 16));
  EXPECT_EQ(rope_dims(TinyGguf("smollm3").plain_layers().read()),
            (std::vector<std::int64_t>{16, 16, 16, 0, 16, 16, 16, 0}));
  TinyGguf granite("granite");
  granite.plain_layers().boolean("rope.scaling.finetuned", false);
  EXPECT_EQ(rope_dims(granite.read()), std::vector<std::int64_t>(8, 0));
  EXPECT_EQ(rope_dims(TinyGguf("stablelm").plain_layers().u32("rope.dimension_count", 4).read())[0],
            4);
}

TEST(GgufArchitectures, Gemma3nSharesFromLayer20) {
  TinyGguf file("gemma3n", 25);
  file.plain_layers(25).u32("attention.sliding_window", 512);
  file.put("per_layer_token_embd.weight", {8 * 25, 100}).put("per_layer_proj_norm.weight", {8});
  file.put("altup_proj.weight", {64, 64, 3}).put(0, "laurel_l.weight", {64, 4});
  const ModelSpec model = file.read();
  EXPECT_EQ(kinds(model)[19], "attention");
  EXPECT_EQ(std::get<SharedAttention>(model.layers[20].mixer).with_layer, 18);  // with a window
  EXPECT_EQ(std::get<SharedAttention>(model.layers[24].mixer).with_layer, 19);  // without
  EXPECT_EQ(attention(model, 18).window_tokens, attention(model, 20).window_tokens);
  EXPECT_EQ(attention(model, 19).window_tokens, attention(model, 24).window_tokens);
  EXPECT_EQ(model.per_layer_embedding_size, 8);
  EXPECT_EQ(model.altup_inputs, 4);
  EXPECT_EQ(model.laurel_rank, 4);
  EXPECT_DOUBLE_EQ(model.embedding_scale, 8.0);  // the root of 64
  EXPECT_TRUE(model.logit_softcap);
}

TEST(GgufArchitectures, Gemma4HasTwoHeadSizesAndSharesByKey) {
  TinyGguf file("gemma4", 6);
  file.u32("attention.sliding_window", 512).u32("attention.shared_kv_layers", 2);
  file.booleans("attention.sliding_window_pattern", {1, 1, 1, 0, 1, 0});
  file.u32("attention.key_length", 32).u32("attention.value_length", 32);
  file.u32("attention.key_length_swa", 16).u32("attention.value_length_swa", 16);
  file.i32s("attention.head_count_kv", {2, 2, 2, 1, 2, 1});
  for (const int i : {0, 1, 2, 4}) {
    file.attention(i).feed_forward(i);
  }
  file.attention(3, 4, 1, 32).feed_forward(3).attention(5, 4, 1, 32).feed_forward(5);
  file.take("blk.3.attn_v.weight").take("blk.5.attn_k.weight").take("blk.5.attn_v.weight");
  const ModelSpec model = file.read();
  EXPECT_EQ(attention(model, 0).head_dim, 16);
  EXPECT_EQ(attention(model, 3).head_dim, 32);
  EXPECT_EQ(attention(model, 3).n_kv_heads, 1);
  EXPECT_TRUE(attention(model, 3).v_is_k);
  EXPECT_FALSE(attention(model, 0).v_is_k);
  EXPECT_EQ(std::get<SharedAttention>(model.layers[4].mixer).with_layer, 2);
  EXPECT_EQ(std::get<SharedAttention>(model.layers[5].mixer).with_layer, 3);
}

TEST(GgufArchitectures, ParallelBlocks) {
  for (const std::string name : {"command-r", "falcon", "phi2", "stablelm"}) {
    TinyGguf file(name, 1);
    file.attention(0).feed_forward(0).take("blk.0.ffn_norm.weight");
    const LayerSpec layer = file.read().layers[0];
    EXPECT_TRUE(layer.parallel_residual && layer.pre_mixer_norm) << name;
    EXPECT_FALSE(layer.pre_feed_forward_norm) << name;
  }
  TinyGguf falcon40("falcon", 1);
  falcon40.attention(0).feed_forward(0).take("blk.0.ffn_norm.weight");
  falcon40.put(0, "attn_norm_2.weight", {64});
  EXPECT_TRUE(falcon40.read().layers[0].parallel_residual);
  EXPECT_TRUE(falcon40.read().layers[0].pre_feed_forward_norm);
}

TEST(GgufArchitectures, NormsOfQueryAndKey) {
  const auto with = [](const std::vector<std::int64_t>& shape) {
    TinyGguf file("llama", 1);
    file.plain_layers(1).put(0, "attn_q_norm.weight", shape);
    return attention(file.read(), 0).qk_norm;
  };
  EXPECT_EQ(with({16}), QkNorm::per_head);      // Qwen3
  EXPECT_EQ(with({64}), QkNorm::all_heads);     // OLMo-2, MiniMax-M2
  EXPECT_EQ(with({16, 4}), QkNorm::each_head);  // Command R+, StableLM-2 12B
}

TEST(GgufArchitectures, NormsBehindTheirBlocks) {
  TinyGguf file("olmo2", 1);
  file.plain_layers(1).take("blk.0.attn_norm.weight").take("blk.0.ffn_norm.weight");
  file.put(0, "post_attention_norm.weight", {64}).put(0, "post_ffw_norm.weight", {64});
  const LayerSpec layer = file.read().layers[0];
  EXPECT_TRUE(layer.post_mixer_norm && layer.post_feed_forward_norm);
  EXPECT_FALSE(layer.pre_mixer_norm || layer.pre_feed_forward_norm);
}

TEST(GgufArchitectures, LayerNormsAndBiases) {
  TinyGguf file("gpt2", 1);
  file.plain_layers(1).drop("attention.layer_norm_rms_epsilon");
  file.f32("attention.layer_norm_epsilon", 1e-5F);
  EXPECT_EQ(file.read().norm, NormKind::layer_no_bias);
  file.put("output_norm.bias", {64}).put("position_embd.weight", {64, 4096});
  for (const char* name : {"attn_q", "attn_k", "attn_v"}) {
    file.take("blk.0." + std::string(name) + ".weight");
  }
  file.put(0, "attn_qkv.weight", {64, 64 + 2 * 32}).put(0, "attn_qkv.bias", {128});
  file.put(0, "attn_output.bias", {64}).put(0, "ffn_up.bias", {96});
  file.take("blk.0.ffn_gate.weight");
  file.put("output.weight", {64, 100}).put("output.bias", {100});
  const ModelSpec model = file.read();
  EXPECT_EQ(model.norm, NormKind::layer);
  EXPECT_EQ(model.position_embeddings, 4096);
  EXPECT_TRUE(attention(model, 0).bias && attention(model, 0).output_bias && model.output_bias);
  EXPECT_FALSE(model.tied_embeddings);
  EXPECT_EQ(model.layers[0].feed_forward,
            FeedForward(DenseFeedForward{.intermediate_size = 96, .gated = false, .bias = true}));
}

TEST(GgufArchitectures, FusedProjections) {
  TinyGguf file("phi3", 1);
  file.attention(0).take("blk.0.attn_q.weight").take("blk.0.attn_k.weight");
  file.take("blk.0.attn_v.weight").put(0, "attn_qkv.weight", {64, 128});
  file.put(0, "ffn_norm.weight", {64}).put(0, "ffn_up.weight", {64, 192});
  file.put(0, "ffn_down.weight", {96, 64}).put("rope_factors_long.weight", {8});
  const ModelSpec model = file.read();
  EXPECT_EQ(model.layers[0].feed_forward,
            FeedForward(DenseFeedForward{.intermediate_size = 96, .gated = true}));
  EXPECT_EQ(model.rotary_factors, RotaryFactors::long_and_short);
}

TEST(GgufArchitectures, ScalesAndCaps) {
  TinyGguf file("granite", 1);
  file.plain_layers(1).f32("embedding_scale", 12).f32("residual_scale", 0.25F);
  file.f32("logit_scale", 8);
  const ModelSpec model = file.read();
  EXPECT_EQ(model.embedding_scale, 12);
  EXPECT_EQ(model.residual_scale, 0.25);
  EXPECT_EQ(model.logit_scale, 8);
  EXPECT_FALSE(model.logit_softcap);
  const ModelSpec gemma = TinyGguf("gemma2").plain_layers().read();
  EXPECT_TRUE(gemma.logit_softcap && gemma.attention_softcap);
}

TEST(GgufArchitectures, ExpertsInAllTheirForms) {
  TinyGguf file("qwen2moe", 3);
  for (int i = 0; i < 3; ++i) {
    file.attention(i).experts(i);
  }
  // Layer 0: a shared expert with a gate. Layer 1: gate and up in one, biases. Layer 2: one tensor
  // per expert.
  file.put(0, "ffn_down_shexp.weight", {40, 64}).put(0, "ffn_gate_inp_shexp.weight", {64});
  file.take("blk.1.ffn_gate_exps.weight").take("blk.1.ffn_up_exps.weight");
  file.put(1, "ffn_gate_up_exps.weight", {64, 96, 8}).put(1, "exp_probs_b.bias", {8});
  for (const char* part : {"gate", "up", "down"}) {
    file.take("blk.2.ffn_" + std::string(part) + "_exps.weight");
  }
  file.put(2, "ffn_gate.0.weight", {64, 48}).put(2, "ffn_down.0.weight", {48, 64});
  const ModelSpec model = file.read();
  MixtureOfExperts expected{
      .n_experts = 8, .n_experts_per_token = 2, .intermediate_size = 48, .gated = true};
  EXPECT_EQ(model.layers[2].feed_forward, FeedForward(expected));
  expected.router_bias = true;
  expected.merged_gate_up = true;
  EXPECT_EQ(model.layers[1].feed_forward, FeedForward(expected));
  expected.router_bias = false;
  expected.merged_gate_up = false;
  expected.n_shared_experts = 1;
  expected.shared_intermediate_size = 40;
  expected.shared_expert_gate = true;
  EXPECT_EQ(model.layers[0].feed_forward, FeedForward(expected));
}

}  // namespace
}  // namespace kvfathom
