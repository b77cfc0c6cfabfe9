#include "model/engine/llama_cpp/cache_size.h"

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom::llama_cpp {
namespace {

ModelSpec of(std::int64_t n_layers, const Mixer& mixer) {
  ModelSpec model;
  model.layers.assign(static_cast<std::size_t>(n_layers), {.mixer = mixer});
  return model;
}

Attention attention(std::int64_t n_kv_heads, std::int64_t head_dim) {
  return {.n_heads = n_kv_heads,
          .n_kv_heads = n_kv_heads,
          .head_dim = head_dim,
          .v_head_dim = head_dim};
}

struct Case {
  DType type = DType::f16;
  std::int64_t context = 4096;
  std::int64_t ubatch = 512;
  bool cuda = false;
  std::int64_t sequences = 1;
};

std::int64_t cache_bytes(const ModelSpec& model, const Case& c) {
  CellSettings settings;
  settings.sequences = c.sequences;
  settings.ubatch_tokens = c.ubatch;
  const CacheSizer sizer(model,
                         CacheScheme::mla_latent,
                         c.type,
                         c.type,
                         /*v_transposed=*/false,
                         c.cuda ? kCudaPadding : kCpuPadding);
  const Cells cells = cells_of(c.context, settings);
  const CacheReport report = sizer.report(cells, settings);
  EXPECT_EQ(report.bytes(), sizer.bytes(cells, settings));
  return report.bytes();
}

ModelSpec glm_4_7_flash() {
  return of(47,
            LatentAttention{.n_heads = 20,
                            .q_lora_rank = 768,
                            .kv_lora_rank = 512,
                            .qk_nope_head_dim = 192,
                            .qk_rope_head_dim = 64,
                            .v_head_dim = 256,
                            .indexer = std::nullopt});
}

// All figures: what llama.cpp 0.5.0 plans as `context` for these settings.
TEST(CacheSize, LatentRowsArePaddedOnCudaOnly) {
  EXPECT_EQ(cache_bytes(glm_4_7_flash(), {}), 221773824);
  EXPECT_EQ(cache_bytes(glm_4_7_flash(), {.type = DType::q8_0}), 117817344);
  EXPECT_EQ(cache_bytes(glm_4_7_flash(), {.type = DType::q8_0, .cuda = true}), 117841408);
  EXPECT_EQ(cache_bytes(glm_4_7_flash(), {.type = DType::q4_0, .cuda = true}), 62385920);
}

TEST(CacheSize, FullRows) {
  const ModelSpec llama_8b = of(32, attention(8, 128));
  EXPECT_EQ(cache_bytes(llama_8b, {}), 536870912);
  EXPECT_EQ(cache_bytes(llama_8b, {.type = DType::q8_0, .cuda = true}), 285212672);
  EXPECT_EQ(cache_bytes(llama_8b, {.type = DType::q4_0}), 150994944);
}

// Gemma-3-4B: 29 windows of 1024 and 5 full layers; 128 and 512 tokens of micro-batch.
TEST(CacheSize, WindowsHoldTheWindowAndAMicroBatch) {
  Attention local = attention(4, 256);
  local.window_tokens = 1024;
  ModelSpec gemma = of(29, local);
  gemma.layers.insert(gemma.layers.end(), 5, {.mixer = attention(4, 256)});
  EXPECT_EQ(cache_bytes(gemma, {.ubatch = 128}), 235929600);
  EXPECT_EQ(cache_bytes(gemma, {.type = DType::q8_0, .ubatch = 128}), 125337600);
  EXPECT_EQ(cache_bytes(gemma, {.context = 8192}), 350224384);
}

// Granite-4.0-H-Tiny: 36 Mamba-2 and 4 attention layers.
TEST(CacheSize, StatesAreFloatAndPerSequence) {
  ModelSpec granite =
      of(36, Mamba2{.d_inner = 3072, .d_state = 128, .d_conv = 4, .n_heads = 48, .n_groups = 1});
  granite.layers.insert(granite.layers.end(), 4, {.mixer = attention(4, 128)});
  EXPECT_EQ(cache_bytes(granite, {.ubatch = 128, .cuda = true}), 91615232);
  EXPECT_EQ(cache_bytes(granite, {.type = DType::q8_0, .ubatch = 128, .cuda = true}), 75886592);
}

TEST(CacheSize, TransposedValuesArePaddedToTheWidestLayer) {
  ModelSpec model = of(1, attention(8, 64));
  model.layers.push_back({.mixer = attention(2, 64)});
  const CellSettings settings;
  const Cells cells = cells_of(256, settings);
  const auto v_bytes = [&](bool transposed) {
    return CacheSizer(model, CacheScheme::native, DType::f16, DType::f16, transposed, kCudaPadding)
        .report(cells, settings)
        .v_bytes;
  };
  EXPECT_EQ(v_bytes(false), 256 * 2 * (512 + 128));
  EXPECT_EQ(v_bytes(true), 256 * 2 * (512 + 512));
}

TEST(CacheSize, RefusesRowsThatDoNotHoldWholeBlocks) {
  EXPECT_THROW((void)cache_bytes(of(1, attention(1, 72)), {.type = DType::q8_0}), InputError);
}

TEST(CacheSize, RefusesTwoWindowSizes) {
  Attention narrow = attention(4, 64);
  narrow.window_tokens = 128;
  Attention wide = attention(4, 64);
  wide.window_tokens = 256;
  ModelSpec model = of(1, narrow);
  model.layers.push_back({.mixer = wide});
  EXPECT_THROW((void)cache_bytes(model, {}), Unsupported);
}

}  // namespace
}  // namespace kvfathom::llama_cpp
