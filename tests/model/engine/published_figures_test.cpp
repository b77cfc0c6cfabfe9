// Memory figures that papers, model reports and engines' logs publish, from the models' own
// configs.
#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/cache/sparse_index.h"
#include "model/engine/engine.h"
#include "model/engine/llama_cpp/cache_size.h"
#include "model/io/hf_config.h"
#include "model/weights/recipe.h"

namespace kvfathom {
namespace {

ModelSpec config(const std::string& file) {
  ModelSpec model = read_hf_config(KVFATHOM_SOURCE_DIR "/tests/data/configs/" + file + ".json");
  model.tensors = tensor_inventory(model);
  return model;
}

CacheReport ideal_cache(const ModelSpec& model,
                        std::int64_t context_tokens,
                        CacheScheme scheme = CacheScheme::native,
                        std::int64_t sequences = 1) {
  EngineSettings settings;
  settings.scheme = scheme;
  settings.sequences = sequences;
  return engine_named("ideal").prepare(model, settings)->evaluate(context_tokens).cache;
}

double mib(std::int64_t bytes) {
  return static_cast<double>(bytes) / 1048576.0;
}

CacheReport llama_cpp_cache(const ModelSpec& model,
                            std::int64_t context_tokens,
                            CacheScheme latent,
                            std::int64_t sequences = 1) {
  llama_cpp::CellSettings settings;
  settings.sequences = sequences;
  const llama_cpp::CacheSizer sizer(
      model, latent, DType::f16, DType::f16, false, llama_cpp::kCudaPadding);
  return sizer.report(llama_cpp::cells_of(context_tokens * sequences, settings), settings);
}

// llama.cpp logs of GLM-4.7-Flash at -c 200000: 19525.56 MiB before the V-less cache (PR 19067),
// 10337.06 MiB after it.
TEST(PublishedFigures, GlmFlashAt200000Tokens) {
  const ModelSpec glm = config("zai-org--GLM-4.7-Flash");
  const CacheReport latent = llama_cpp_cache(glm, 200000, CacheScheme::mla_latent);
  EXPECT_EQ(latent.bytes(), 10839195648);
  EXPECT_NEAR(mib(latent.bytes()), 10337.06, 0.005);
  const CacheReport with_v = llama_cpp_cache(glm, 200000, CacheScheme::mla_with_v);
  EXPECT_EQ(with_v.bytes(), 20474036224);
  EXPECT_NEAR(mib(with_v.bytes()), 19525.56, 0.005);
  EXPECT_NEAR(mib(with_v.v_bytes), 9188.50, 0.005);
}

// llama-cpp-turboquant issue 21: 202752 tokens over two GPUs, 24 and 23 layers: 5346 + 5123 MiB.
TEST(PublishedFigures, GlmFlashSplitOverTwoGpus) {
  ModelSpec part = config("zai-org--GLM-4.7-Flash");
  part.layers.resize(24);
  EXPECT_NEAR(mib(llama_cpp_cache(part, 202752, CacheScheme::mla_latent).bytes()), 5346.0, 0.05);
  part.layers.resize(23);
  EXPECT_NEAR(mib(llama_cpp_cache(part, 202752, CacheScheme::mla_latent).bytes()), 5123.2, 0.06);
}

// Its BF16 GGUF is 55.79 GiB.
TEST(PublishedFigures, GlmFlashWeights) {
  const ModelSpec glm = config("zai-org--GLM-4.7-Flash");
  const auto tensors = quantised(glm, glm.tensors, parse_recipe("bf16"));
  EXPECT_NEAR(static_cast<double>(weight_bytes(tensors)) / 1073741824.0, 55.79, 0.005);
}

TEST(PublishedFigures, BytesPerToken) {
  const ModelSpec glm = config("zai-org--GLM-4.7-Flash");
  EXPECT_EQ(ideal_cache(glm, 4096, CacheScheme::mla_expanded).bytes_per_token, 962560);
  EXPECT_EQ(ideal_cache(glm, 4096).bytes_per_token, 54144);
  EXPECT_EQ(ideal_cache(config("google--gemma-3-4b-it"), 4096, CacheScheme::full).bytes_per_token,
            139264);
  EXPECT_EQ(ideal_cache(config("google--gemma-3-12b-it"), 4096, CacheScheme::full).bytes_per_token,
            393216);
  EXPECT_EQ(ideal_cache(config("moonshotai--Kimi-Linear-48B-A3B-Instruct"), 4096).bytes_per_token,
            8064);
}

// 978 MiB of Gemma-3-12B without windows are 2608 tokens exactly.
TEST(PublishedFigures, Gemma12bTokensIn978Mib) {
  EXPECT_EQ(ideal_cache(config("google--gemma-3-12b-it"), 2608, CacheScheme::full).bytes(),
            978LL << 20);
}

// gemma_pytorch's configs: global layers grow by 20480 and 65536 B per token, local ones take
// 121.6 and 335.5 MB in bf16.
TEST(PublishedFigures, GemmaWindows) {
  const CacheReport small = ideal_cache(config("google--gemma-3-4b-it"), 8192);
  EXPECT_EQ(small.bytes_per_token, 20480);
  EXPECT_NEAR(static_cast<double>(small.fixed_bytes_per_sequence) / 1e6, 121.6, 0.05);
  const CacheReport large = ideal_cache(config("google--gemma-3-12b-it"), 8192);
  EXPECT_EQ(large.bytes_per_token, 65536);
  EXPECT_NEAR(static_cast<double>(large.fixed_bytes_per_sequence) / 1e6, 335.5, 0.05);
}

// openai/gpt-oss model.py: every second layer sees 128 tokens.
TEST(PublishedFigures, GptOssWindows) {
  const CacheReport small = ideal_cache(config("openai--gpt-oss-20b"), 8192);
  EXPECT_EQ(small.bytes_per_token, 24576);
  EXPECT_NEAR(static_cast<double>(small.fixed_bytes_per_sequence) / 1e6, 3.15, 0.005);
  const CacheReport large = ideal_cache(config("openai--gpt-oss-120b"), 8192);
  EXPECT_EQ(large.bytes_per_token, 36864);
  EXPECT_NEAR(static_cast<double>(large.fixed_bytes_per_sequence) / 1e6, 4.72, 0.005);
}

// Qwen3.5-27B with 4 sequences: llama.cpp logs S 576.00 MiB and R 22.50 MiB.
TEST(PublishedFigures, Qwen35States) {
  const CacheReport cache =
      llama_cpp_cache(config("Qwen--Qwen3.5-27B"), 4096, CacheScheme::mla_latent, 4);
  EXPECT_EQ(mib(cache.state_bytes), 576.0 + 22.5);
}

// Qwen3-Next-80B-A3B: 12 of 48 layers hold K and V.
TEST(PublishedFigures, Qwen3Next) {
  const CacheReport cache = ideal_cache(config("Qwen--Qwen3-Next-80B-A3B-Thinking"), 4096);
  EXPECT_EQ(cache.bytes_per_token, 24576);
  EXPECT_EQ(cache.state_bytes, 36 * (32 * 128 * 128 * 4 + 3 * 8192 * 2));
}

// DeepSeek-V3.2 in bf16: 61 latent rows of 1152 B, and an index key of 128 elements each.
TEST(PublishedFigures, DeepSeekV32) {
  const CacheReport cache = ideal_cache(config("deepseek-ai--DeepSeek-V3.2"), 4096);
  EXPECT_EQ(cache.bytes_per_token, 70272 + 61 * 128 * 2);
}

// GLM-5 in llama.cpp with q8_0 indexer keys at 65536 cells: 178.50 MiB for the 21 layers that own
// an indexer (llama.cpp issue 26382).
TEST(PublishedFigures, IndexerKeysOfTheLayersThatOwnOne) {
  const cache::SparseIndex index{.head_dim = 128};
  EXPECT_EQ(mib(21 * 65536 * row_bytes(DType::q8_0, layout(index).k_row_elements)), 178.5);
}

// Gemma-3n-E4B: 20 of 35 layers own their K and V, 4 of them full; 8192 B per token and 16.8 MB.
TEST(PublishedFigures, Gemma3nSharing) {
  const CacheReport cache = ideal_cache(config("google--gemma-3n-E4B-it"), 8192);
  EXPECT_EQ(cache.bytes_per_token, 8192);
  EXPECT_NEAR(static_cast<double>(cache.fixed_bytes_per_sequence) / 1e6, 16.8, 0.05);
}

// Qwen2.5-7B, 8219 tokens in f16; the paper's saved slot file adds 131 kB of header to this.
TEST(PublishedFigures, Qwen25SlotFile) {
  EXPECT_EQ(ideal_cache(config("Qwen--Qwen2.5-7B"), 8219).bytes(), 471310336);
}

// Mooncake's "40 GB": Llama-3-70B at 128k tokens.
TEST(PublishedFigures, Llama70bAt128k) {
  EXPECT_EQ(ideal_cache(config("meta-llama--Meta-Llama-3-70B"), 131072).bytes(), 40LL << 30);
}

}  // namespace
}  // namespace kvfathom
