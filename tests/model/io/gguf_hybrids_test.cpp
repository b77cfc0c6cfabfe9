// Architectures whose layers are of several kinds, each on a small model of its own.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/io/gguf_architectures.h"
#include "tests/model/io/tiny_gguf.h"

namespace kvfathom {
namespace {

using testing::attention;
using testing::kinds;
using testing::TinyGguf;

TEST(GgufArchitectures, JambaAlternates) {
  TinyGguf file("jamba", 2);
  file.i32s("attention.head_count_kv", {0, 2}).u32("ssm.conv_kernel", 4);
  file.u32("ssm.inner_size", 128).u32("ssm.state_size", 8).u32("ssm.time_step_rank", 5);
  file.put(0, "attn_norm.weight", {64}).put(0, "ssm_conv1d.weight", {4, 128});
  file.put(0, "ssm_a", {8, 128}).put(0, "ssm_dt_norm.weight", {5}).feed_forward(0);
  file.attention(1).experts(1);
  const ModelSpec model = file.read();
  const Mamba expected{
      .d_inner = 128, .d_state = 8, .d_conv = 4, .dt_rank = 5, .dt_b_c_norm = true};
  EXPECT_EQ(model.layers[0].mixer, Mixer(expected));
  EXPECT_EQ(attention(model, 1).rope_dim, 0);
}

TEST(GgufArchitectures, NemotronHHasOnePartPerLayer) {
  TinyGguf file("nemotron_h", 3);
  file.i32s("attention.head_count", {4, 4, 4}).i32s("attention.head_count_kv", {0, 0, 2});
  file.i32s("feed_forward_length", {0, 96, 0}).u32("ssm.conv_kernel", 4);
  file.u32("ssm.inner_size", 128).u32("ssm.state_size", 8).u32("ssm.time_step_rank", 16);
  file.u32("ssm.group_count", 2);
  file.put(0, "attn_norm.weight", {64}).put(0, "ssm_conv1d.weight", {4, 128 + 2 * 2 * 8});
  file.put(1, "attn_norm.weight", {64}).put(1, "ffn_up.weight", {64, 96});
  file.put(1, "ffn_down.weight", {96, 64}).attention(2);
  const ModelSpec model = file.read();
  EXPECT_EQ(kinds(model), (std::vector<std::string>{"mamba2", "none", "attention"}));
  EXPECT_TRUE(model.layers[1].pre_feed_forward_norm);
  EXPECT_FALSE(model.layers[1].pre_mixer_norm);
  EXPECT_EQ(model.layers[0].feed_forward, FeedForward(NoFeedForward{}));
  EXPECT_EQ(model.layers[1].feed_forward,
            FeedForward(DenseFeedForward{.intermediate_size = 96, .gated = false}));
}

TEST(GgufArchitectures, DeciSkipsAttentionAndFeedForward) {
  TinyGguf file("deci", 3);
  file.i32s("attention.head_count", {4, 0, 4}).i32s("attention.head_count_kv", {2, 0, 1});
  file.attention(0).feed_forward(0).feed_forward(1).attention(2, 4, 1);
  const ModelSpec model = file.read();
  EXPECT_EQ(kinds(model), (std::vector<std::string>{"attention", "none", "attention"}));
  EXPECT_EQ(attention(model, 2).n_kv_heads, 1);
  EXPECT_EQ(model.layers[2].feed_forward, FeedForward(NoFeedForward{}));
}

TEST(GgufArchitectures, Lfm2KeepsColumnsOfAConvolution) {
  TinyGguf file("lfm2", 2);
  file.i32s("attention.head_count_kv", {0, 2}).u32("shortconv.l_cache", 3);
  file.take("output_norm.weight").put("token_embd_norm.weight", {64});
  file.put(0, "attn_norm.weight", {64}).put(0, "shortconv.conv.weight", {3, 64}).feed_forward(0);
  file.attention(1).feed_forward(1);
  const ModelSpec model = file.read();
  EXPECT_EQ(model.layers[0].mixer, Mixer(ShortConv{.channels = 64, .d_conv = 3}));
  EXPECT_FALSE(model.embedding_norm);  // that tensor is its output norm
}

TEST(GgufArchitectures, Qwen35TakesItsLayersFromTheFile) {
  const auto delta_net = [](TinyGguf& file, int i) {
    file.put(i, "attn_norm.weight", {64}).put(i, "post_attention_norm.weight", {64});
    file.put(i, "ssm_conv1d.weight", {4, 2 * 2 * 16 + 4 * 16}).feed_forward(i);
    file.take("blk." + std::to_string(i) + ".ffn_norm.weight");
  };
  TinyGguf file("qwen35", 5);
  file.u32("ssm.conv_kernel", 4).u32("ssm.inner_size", 64).u32("ssm.state_size", 16);
  file.u32("ssm.time_step_rank", 4).u32("ssm.group_count", 2).u32("nextn_predict_layers", 1);
  for (const int i : {0, 1, 2}) {
    delta_net(file, i);
  }
  file.attention(3).put(3, "attn_q.weight", {64, 128}).feed_forward(3);
  file.attention(4).feed_forward(4).put(4, "nextn.eh_proj.weight", {128, 64});
  EXPECT_EQ(kinds(file.read()),
            (std::vector<std::string>{
                "gated-delta-net", "gated-delta-net", "gated-delta-net", "attention"}));
  EXPECT_TRUE(attention(file.read(), 3).output_gate);
  EXPECT_EQ(file.read().extras.at(0).n_layers, 1);
  file.booleans("attention.recurrent_layers", {1, 1, 0, 1, 0});
  file.attention(2);
  delta_net(file, 3);
  EXPECT_EQ(kinds(file.read())[2], "attention");
  EXPECT_EQ(kinds(file.read())[3], "gated-delta-net");
}

TEST(GgufArchitectures, KimiLinearMixesDeltaAndLatent) {
  TinyGguf file("kimi-linear", 2);
  file.latent_keys().i32s("attention.head_count_kv", {0, 1});
  file.u32("kda.head_dim", 16).u32("ssm.conv_kernel", 4);
  file.put(0, "attn_norm.weight", {64}).put(0, "ssm_conv1d_q.weight", {4, 1, 64}).feed_forward(0);
  file.latent(1).feed_forward(1);
  const ModelSpec model = file.read();
  EXPECT_EQ(model.layers[0].mixer,
            Mixer(KimiDeltaAttention{.n_heads = 4, .head_dim = 16, .d_conv = 4}));
  EXPECT_EQ(std::get<LatentAttention>(model.layers[1].mixer).kv_lora_rank, 32);
}

TEST(GgufArchitectures, IndexersOnTheLayersThatOwnOne) {
  const auto owners = [](TinyGguf file) {
    file.latent_keys().u32("attention.indexer.head_count", 4);
    file.u32("attention.indexer.key_length", 16).u32("attention.indexer.top_k", 64);
    for (int i = 0; i < 8; ++i) {
      file.latent(i).feed_forward(i).put(i, "indexer.attn_k.weight", {64, 16});
    }
    const ModelSpec model = file.read();
    std::string marks;
    for (const LayerSpec& layer : model.layers) {
      marks += std::get<LatentAttention>(layer.mixer).indexer ? 'x' : '.';
    }
    return marks;
  };
  EXPECT_EQ(owners(TinyGguf("deepseek32")), "xxxxxxxx");
  EXPECT_EQ(owners(TinyGguf("glm-dsa")), "xxxxxxxx");
  // GLM-5.2, told by its context: 21 of 78 layers, from its published indexer types.
  EXPECT_EQ(owners(TinyGguf("glm-dsa").u32("context_length", 1048576)), "xxx...x.");
  EXPECT_EQ(owners(TinyGguf("glm-dsa").i32s("attention.indexer.types", {1, 0, 0, 1, 0, 0, 1, 0})),
            "x..x..x.");
}

}  // namespace
}  // namespace kvfathom
