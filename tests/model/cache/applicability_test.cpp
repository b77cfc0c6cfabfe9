#include "model/cache/applicability.h"

#include <gtest/gtest.h>

#include "model/cache/request_text.h"
#include "model/error.h"

namespace kvfathom::cache {
namespace {

Attention mha() {
  return {.n_heads = 32, .n_kv_heads = 32, .head_dim = 128, .v_head_dim = 128};
}

std::string reason(const Attention& attention, const std::string& scheme) {
  ModelSpec model;
  model.hidden_size = 4096;
  model.layers.push_back({.mixer = attention});
  return why_not(model, parse_scheme(scheme).request).value_or("applies");
}

std::string note(const Attention& attention, const std::string& scheme) {
  ModelSpec model;
  model.hidden_size = 4096;
  model.layers.push_back({.mixer = attention});
  const auto all = notes(model, parse_scheme(scheme).request, std::nullopt);
  return all.empty() ? "" : all.front();
}

TEST(Applicability, VFromKIsExactOnlyForMhaWithASquareMatrixAndNoNorm) {
  EXPECT_EQ(reason(mha(), "k-only"), "applies");
  Attention grouped = mha();
  grouped.n_kv_heads = 8;
  EXPECT_EQ(reason(grouped, "k-only"),
            "K has lost rank: 8 KV heads for 32 query heads (projector=learned is lossy but "
            "applies)");
  EXPECT_EQ(reason(grouped, "k-only:projector=learned"), "applies");
  Attention wide = mha();
  wide.head_dim = 256;
  EXPECT_EQ(reason(wide, "k-only"), "W_K is no square matrix: 4096 x 8192");
  Attention normed = mha();
  normed.qk_norm = QkNorm::per_head;
  EXPECT_EQ(reason(normed, "k-only"), "K is normalised before it is cached");
  Attention latent = mha();
  latent.kv_lora_rank = 512;
  EXPECT_EQ(reason(latent, "k-only"), "K is projected from a latent of rank 512");
}

TEST(Applicability, OneKvHeadPredictsNoOther) {
  Attention single = mha();
  single.n_kv_heads = 1;
  EXPECT_EQ(reason(single, "head-linear"), "one KV head leaves none to predict from it");
}

TEST(Applicability, LatentLayersHaveNoKvToEvict) {
  ModelSpec model;
  model.layers.push_back({.mixer = LatentAttention{.n_heads = 20, .kv_lora_rank = 512}});
  EXPECT_EQ(why_not(model, CacheScheme::evict_snapkv), "its layers hold mla-latent");
  EXPECT_EQ(why_not(model, CacheScheme::offload), std::nullopt);
}

TEST(Applicability, AResidualPerLayerSaysWhatItCosts) {
  EXPECT_EQ(note(mha(), "residual"), "A vector per layer takes 0.50 of what K and V take.");
  Attention grouped = mha();
  grouped.n_kv_heads = 8;
  EXPECT_EQ(note(grouped, "residual"),
            "A vector per layer takes 2.00 times what K and V take: it saves memory only where "
            "hidden_size (4096) is below 2 * n_kv_heads * head_dim (2048).");
}

TEST(Applicability, ExactnessIsTheSchemes) {
  for (const char* scheme : {"native", "mla-with-v", "k-only", "residual", "offload"}) {
    EXPECT_TRUE(is_exact(parse_scheme(scheme).request)) << scheme;
  }
  for (const char* scheme :
       {"k-only:projector=learned", "head-linear", "evict-tova", "xquant", "kivi"}) {
    EXPECT_FALSE(is_exact(parse_scheme(scheme).request)) << scheme;
  }
}

TEST(Applicability, OtherEnginesRefuseByName) {
  EngineSettings settings;
  EXPECT_NO_THROW(require_model_scheme("llama.cpp", settings));
  settings.scheme = CacheScheme::kivi;
  settings.scheme_parameters = KiviParameters{.bits = 4};
  try {
    require_model_scheme("llama.cpp", settings);
    FAIL();
  } catch (const Unsupported& error) {
    EXPECT_STREQ(
        error.what(),
        "--scheme: \"kivi:bits=4\" is nothing that llama.cpp runs; --engine ideal prices it");
  }
  settings.scheme = CacheScheme::native;
  settings.offload.emplace();
  EXPECT_THROW(require_model_scheme("llama.cpp", settings), Unsupported);
}

}  // namespace
}  // namespace kvfathom::cache
