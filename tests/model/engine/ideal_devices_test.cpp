// The engine `ideal` over several GPUs. Bytes are by hand from the published configs: a layer of
// Llama-3.1-8B has 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 = 218103808 values in bf16
// and two norms of 4096 in f32; the embedding and the head are 128256 * 4096 values each.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/engine/engine.h"
#include "model/error.h"
#include "tests/model/catalog.h"

namespace kvfathom {
namespace {

using testing::catalog;

constexpr std::int64_t kLayerMatrices = 2 * 218103808LL;
constexpr std::int64_t kLayerNorms = 2LL * 4096 * 4;
constexpr std::int64_t kLayer = kLayerMatrices + kLayerNorms;
constexpr std::int64_t kVocabulary = 2 * 128256LL * 4096;  // 1050673152
constexpr std::int64_t kOutputNorm = 4096 * 4LL;
constexpr std::int64_t kRopeFactors = 64 * 4LL;        // rope_freqs, beside the embedding
constexpr std::int64_t kRowBytes = 2LL * 8 * 128 * 2;  // K and V of one token and layer

EngineSettings on(int n_gpus, std::int64_t tensor_parallel = 1) {
  EngineSettings settings;
  settings.n_gpus = n_gpus;
  settings.tensor_parallel = tensor_parallel;
  return settings;
}

MemoryReport priced(const ModelSpec& model, const EngineSettings& settings, std::int64_t context) {
  return engine_named("ideal").prepare(model, settings)->evaluate(context);
}

std::vector<std::int64_t> by_device(const MemoryReport& report, LedgerKind kind, int n_gpus) {
  std::vector<std::int64_t> bytes(static_cast<std::size_t>(n_gpus), 0);
  for (const LedgerLine& line : report.ledger.lines) {
    bytes.at(static_cast<std::size_t>(line.device.index)) += line.kind == kind ? line.bytes : 0;
  }
  return bytes;
}

using Bytes = std::vector<std::int64_t>;

TEST(IdealDevices, TwoHoldHalfOfTheLayersEach) {
  EngineSettings settings = on(2);
  settings.sequences = 2;
  const MemoryReport report = priced(catalog("llama-3.1-8b"), settings, 8192);
  EXPECT_EQ(
      by_device(report, LedgerKind::weights, 2),
      (Bytes{16 * kLayer + kVocabulary + kRopeFactors, 16 * kLayer + kVocabulary + kOutputNorm}));
  EXPECT_EQ(by_device(report, LedgerKind::cache, 2), (Bytes{1 << 30, 1 << 30}));
  EXPECT_EQ(report.cache.bytes_per_token, 131072);  // as on one device
  ASSERT_EQ(report.cache.groups.size(), 1U);
  EXPECT_EQ(report.cache.groups.front().n_layers, 32);
}

TEST(IdealDevices, EmbeddingsOfEveryLayerHaveNoCopyForATiedHead) {
  const ModelSpec model = catalog("gemma-3n-e2b-it");
  const Bytes two = by_device(priced(model, on(2), 1000), LedgerKind::weights, 2);
  const Bytes one = by_device(priced(model, on(1), 1000), LedgerKind::weights, 1);
  constexpr std::int64_t kEmbedding = 2 * 262400LL * 2048;  // of the head, and no more
  EXPECT_EQ(two.at(0) + two.at(1), one.at(0) + kEmbedding);
}

TEST(IdealDevices, ThreeHoldElevenTenAndElevenLayers) {
  const MemoryReport report = priced(catalog("llama-3.1-8b"), on(3), 1000);
  EXPECT_EQ(by_device(report, LedgerKind::cache, 3),
            (Bytes{11 * kRowBytes * 1000, 10 * kRowBytes * 1000, 11 * kRowBytes * 1000}));
  EXPECT_EQ(by_device(report, LedgerKind::weights, 3).at(1), 10 * kLayer);
}

TEST(IdealDevices, UnevenOnesHoldLayersInProportionToTheirMemory) {
  EngineSettings settings = on(2);
  settings.gpu_memory_bytes = {24LL << 30, 8LL << 30};
  const auto plan = engine_named("ideal").prepare(catalog("llama-3.1-8b"), settings);
  EXPECT_EQ(by_device(plan->evaluate(1000), LedgerKind::cache, 2),
            (Bytes{24 * kRowBytes * 1000, 8 * kRowBytes * 1000}));
  const auto placement = plan->placement();
  ASSERT_TRUE(placement);
  const std::vector<std::pair<Device, std::int64_t>> expected{{{0}, 24}, {{1}, 9}};  // with head
  EXPECT_EQ(placement->layers, expected);
  settings.gpu_memory_bytes = {1000LL << 30, 1};
  EXPECT_EQ(by_device(priced(catalog("llama-3.1-8b"), settings, 1000), LedgerKind::cache, 2).at(1),
            kRowBytes * 1000)
      << "no device is without a layer";
}

TEST(IdealDevices, TensorParallelRanksHoldHalfOfEveryMatrix) {
  const MemoryReport report = priced(catalog("llama-3.1-8b"), on(2, 2), 8192);
  const std::int64_t rank =
      32 * (kLayerMatrices / 2 + kLayerNorms) + kVocabulary + kOutputNorm + kRopeFactors;
  EXPECT_EQ(by_device(report, LedgerKind::weights, 2), (Bytes{rank, rank}));
  EXPECT_EQ(by_device(report, LedgerKind::cache, 2), (Bytes{1 << 29, 1 << 29}));
}

TEST(IdealDevices, RanksBeyondTheKvHeadsReplicateThem) {
  const MemoryReport report = priced(catalog("llama-3.1-8b"), on(16, 16), 8192);
  EXPECT_EQ(report.cache.bytes(), 2LL << 30) << "8 KV heads twice over";
  EXPECT_EQ(report.cache.bytes_per_token, 2 * 131072);
}

TEST(IdealDevices, RanksAndStagesTogether) {
  const MemoryReport report = priced(catalog("llama-3.1-8b"), on(4, 2), 8192);
  EXPECT_EQ(by_device(report, LedgerKind::cache, 4), (Bytes(4, 1 << 28)));
  const Bytes weights = by_device(report, LedgerKind::weights, 4);
  EXPECT_EQ(weights.at(0), weights.at(1));
  EXPECT_EQ(weights.at(2) - weights.at(0), kOutputNorm - kRopeFactors);
}

// GLM-4.7-Flash: 47 layers of 576 values of latent and rope key, the same for all heads.
TEST(IdealDevices, EveryRankHoldsAllLatents) {
  const MemoryReport report = priced(catalog("glm-4.7-flash"), on(2, 2), 1000);
  EXPECT_EQ(by_device(report, LedgerKind::cache, 2),
            (Bytes{47LL * 576 * 2 * 1000, 47LL * 576 * 2 * 1000}));
}

// Tied: gemma-3-4b's head is its embedding, 262208 * 2560 values in bf16 on both devices.
TEST(IdealDevices, TheLastHoldsACopyOfATiedEmbedding) {
  const ModelSpec gemma = catalog("gemma-3-4b-it");
  ASSERT_TRUE(gemma.tied_embeddings);
  const std::int64_t one = priced(gemma, on(1), 1).ledger.bytes_of(LedgerKind::weights);
  const std::int64_t two = priced(gemma, on(2), 1).ledger.bytes_of(LedgerKind::weights);
  EXPECT_EQ(two - one, gemma.vocab_size * 2560 * 2);
}

TEST(IdealDevices, LayersKeepTheirPlaceAmongAll) {
  EngineSettings settings = on(1);
  settings.scheme = CacheScheme::residual;
  settings.scheme_parameters = cache::ResidualParameters{.checkpoints = 3};
  const ModelSpec llama = catalog("llama-3.1-8b");
  const std::int64_t one = priced(llama, settings, 8192).cache.bytes();
  settings.n_gpus = 2;
  EXPECT_EQ(priced(llama, settings, 8192).cache.bytes(), one) << "three vectors, not three each";
}

TEST(IdealDevices, RefusesWhatDoesNotDivide) {
  const ModelSpec llama = catalog("llama-3.1-8b");
  EXPECT_THROW(priced(llama, on(3, 2), 1), InputError);
  EXPECT_THROW(priced(llama, on(1, 2), 1), InputError);
  EXPECT_THROW(priced(llama, on(3, 3), 1), InputError) << "32 heads";
  EXPECT_THROW(priced(llama, on(33), 1), InputError) << "32 layers";
  EngineSettings settings = on(4, 2);
  settings.pipeline_parallel = 4;
  EXPECT_THROW(priced(llama, settings, 1), InputError);
  settings = on(2);
  settings.data_parallel = 2;
  EXPECT_THROW(priced(llama, settings, 1), Unsupported);
}

}  // namespace
}  // namespace kvfathom
