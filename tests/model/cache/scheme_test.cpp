#include "model/cache/scheme.h"

#include <set>

#include <gtest/gtest.h>

#include "model/cache/groups.h"
#include "model/engine/engine.h"
#include "model/error.h"

namespace kvfathom::cache {
namespace {

/// GLM-4.7-Flash's attention (its config: 47 layers, 20 heads, rank 512, rope 64).
LatentAttention glm_latent() {
  return {.n_heads = 20,
          .q_lora_rank = 768,
          .kv_lora_rank = 512,
          .qk_nope_head_dim = 192,
          .qk_rope_head_dim = 64,
          .v_head_dim = 256,
          .indexer = std::nullopt};
}

std::int64_t f16_bytes_per_token(const Mixer& mixer, CacheScheme scheme) {
  std::int64_t elements = 0;
  for (const Scheme& s : schemes_of(mixer, scheme)) {
    elements += layout(s).k_row_elements + layout(s).v_row_elements;
  }
  return 2 * elements;
}

TEST(Schemes, LatentBytesMatchPublishedFigures) {
  const Mixer glm = glm_latent();
  EXPECT_EQ(47 * f16_bytes_per_token(glm, CacheScheme::native), 54144);
  EXPECT_EQ(47 * f16_bytes_per_token(glm, CacheScheme::mla_with_v), 102272);
  EXPECT_EQ(47 * f16_bytes_per_token(glm, CacheScheme::mla_expanded), 962560);
}

TEST(Schemes, GroupedQueryBytesMatchPublishedFigures) {
  const Attention gemma_3_4b{.n_heads = 8, .n_kv_heads = 4, .head_dim = 256, .v_head_dim = 256};
  EXPECT_EQ(34 * f16_bytes_per_token(gemma_3_4b, CacheScheme::native), 139264);
  const Attention llama_3_70b{.n_heads = 64, .n_kv_heads = 8, .head_dim = 128, .v_head_dim = 128};
  EXPECT_EQ(80 * f16_bytes_per_token(llama_3_70b, CacheScheme::native), 327680);
}

TEST(Schemes, FullLiftsWindows) {
  Attention local{.n_heads = 8, .n_kv_heads = 4, .head_dim = 256, .v_head_dim = 256};
  local.window_tokens = 1024;
  EXPECT_EQ(layout(schemes_of(local, CacheScheme::native).front()).token_cap, 1024);
  EXPECT_EQ(layout(schemes_of(local, CacheScheme::full).front()).token_cap, std::nullopt);
}

// Qwen3.5-27B: llama.cpp logs 576.00 MiB of state and 22.50 MiB of convolution for 4 sequences.
TEST(Schemes, DeltaNetStateMatchesALog) {
  const GatedDeltaNet net{
      .n_k_heads = 16, .n_v_heads = 48, .k_head_dim = 128, .v_head_dim = 128, .d_conv = 4};
  const CacheLayout cache = layout(schemes_of(net, CacheScheme::native).front());
  EXPECT_EQ(4 * 48 * cache.state_elements * 4, 576LL << 20);
  EXPECT_EQ(4 * 48 * cache.conv_elements * 4, (45LL << 20) / 2);
}

// mamba2-2.7b, one sequence: llama.cpp logs R 3.94 MiB and S 160.00 MiB for 64 layers.
TEST(Schemes, Mamba2StateMatchesALog) {
  const Mamba2 mamba{.d_inner = 5120, .d_state = 128, .d_conv = 4, .n_heads = 80, .n_groups = 1};
  const CacheLayout cache = layout(schemes_of(mamba, CacheScheme::native).front());
  EXPECT_EQ(64 * cache.state_elements * 4, 160LL << 20);
  EXPECT_EQ(64 * cache.conv_elements * 4, 4128768);
}

// Kimi-Linear: 7 latent layers of 27 (report: 8064 B per token against 31104), state 41.9 MB.
TEST(Schemes, KimiLinearMatchesItsReport) {
  LatentAttention latent = glm_latent();
  EXPECT_EQ(7 * f16_bytes_per_token(latent, CacheScheme::native), 8064);
  EXPECT_EQ(27 * f16_bytes_per_token(latent, CacheScheme::native), 31104);
  const State state = state_of(KimiDeltaAttention{.n_heads = 32, .head_dim = 128, .d_conv = 4});
  EXPECT_EQ(20 * state.state_elements * 4, 41943040);
}

// DeepSeek-V3.2 in bf16: 61 layers of 1152 B; the indexer's key adds head_dim elements.
TEST(Schemes, IndexerKeysStandBesideTheLatent) {
  LatentAttention latent = glm_latent();
  latent.indexer = Indexer{.n_heads = 64, .head_dim = 128, .top_k = 2048};
  const auto schemes = schemes_of(latent, CacheScheme::native);
  ASSERT_EQ(schemes.size(), 2U);
  EXPECT_EQ(61 * layout(schemes[0]).k_row_elements * 2, 70272);
  EXPECT_EQ(layout(schemes[1]).k_row_elements, 128);
}

TEST(Schemes, LayersThatShareOwnNothing) {
  ModelSpec model;
  const Attention attention{.n_heads = 8, .n_kv_heads = 2, .head_dim = 256, .v_head_dim = 256};
  model.layers.assign(3, {.mixer = attention});
  model.layers.push_back({.mixer = SharedAttention{2, attention}});
  const auto groups = layer_groups(model, CacheScheme::native);
  ASSERT_EQ(groups.size(), 1U);
  EXPECT_EQ(groups.front().n_layers, 3);
}

TEST(Schemes, ARequestThatAppliesNowhereIsRefused) {
  ModelSpec model;
  model.name = "tiny";
  model.layers.push_back(
      {.mixer = Attention{.n_heads = 1, .n_kv_heads = 1, .head_dim = 64, .v_head_dim = 64}});
  EXPECT_NO_THROW(require_applicable(model, CacheScheme::full));
  try {
    require_applicable(model, CacheScheme::mla_latent);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(),
                 "--scheme: \"mla-latent\" applies to no layer of tiny; its layers hold full");
  }
}

TEST(Schemes, NamesRoundTrip) {
  std::set<std::string_view> names;
  for (const SchemeInfo& scheme : all_schemes()) {
    EXPECT_EQ(scheme_named(scheme.name), scheme.scheme);
    EXPECT_TRUE(names.insert(scheme.name).second);
  }
  EXPECT_THROW((void)scheme_named("mla"), InputError);
}

}  // namespace
}  // namespace kvfathom::cache
