// Which kernels a step runs and over how many tokens: what layers, ranks and types share.
#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "model/latency/step_ops.h"
#include "tests/model/catalog.h"

namespace kvfathom {
namespace {

using testing::catalog;

const Op& op_of(const std::vector<Op>& ops, std::string_view part) {
  return *std::ranges::find(ops, part, &Op::part);
}

// GLM-5.2 has indexers in 21 of its 78 layers; the others attend to the 2,048 tokens that the last
// of them chose (config.json, indexer_types). 78 x 2,048 x 576 x 2 B however long the context.
TEST(StepOps, LayersWithoutAnIndexerAttendToWhatTheLastOneChose) {
  const ModelSpec model = catalog("glm-5.2");
  const auto latents = [&](std::int64_t cached) {
    std::vector<Op> ops;
    StepOps(model, {}).emit({.n_cached_tokens = cached}, ops);
    double sum = 0.0;
    for (const Op& op : ops) {
      const bool reads = op.op_class.kind == OpKind::mla_decode;
      sum += reads ? static_cast<double>(op.n_times) * op.cache.value() : 0.0;
    }
    return sum;
  };
  EXPECT_EQ(latents(1'000'000), 78.0 * 2048.0 * 576.0 * 2.0);
  EXPECT_EQ(latents(999), 78.0 * 1000.0 * 576.0 * 2.0);
  // A prompt's attention grows with the square only in what the indexers score.
  const auto attention = [&](std::int64_t tokens) {
    std::vector<Op> ops;
    StepOps(model, {}).emit({.phase = Phase::prefill, .n_new_tokens = tokens}, ops);
    double sum = 0.0;
    for (const Op& op : ops) {
      const bool attends = op.op_class.kind == OpKind::prefill_attention;
      sum += attends ? static_cast<double>(op.n_times) * op.cost.flops.value() : 0.0;
    }
    return sum;
  };
  EXPECT_LT(attention(131'072), 2.1 * attention(65'536));
}

// Caches of 8-bit floats have kernels of their own; integers in blocks and packed rows do not.
TEST(StepOps, ACacheGoesByTheKernelOfItsType) {
  const ModelSpec model = catalog("llama-3.1-8b");
  const auto format = [&](DType k, DType v) {
    std::vector<Op> ops;
    LatencySettings settings;
    settings.cache_type_k = k;
    settings.cache_type_v = v;
    StepOps(model, settings).emit({.n_cached_tokens = 8192}, ops);
    return op_of(ops, "attention").op_class.format;
  };
  EXPECT_EQ(format(DType::f8_e4m3, DType::f8_e4m3), DType::f8_e4m3);
  EXPECT_EQ(format(DType::bf16, DType::bf16), DType::bf16);
  EXPECT_EQ(format(DType::q8_0, DType::q8_0), DType::q8_0);
  EXPECT_EQ(format(DType::q4_0, DType::q4_0), DType::q4_0);
}

// k-only reads keys twice, for scores and to make values of, `residual` the stored inputs, which
// are as wide: that is the cache they have.
TEST(StepOps, WhatCachesAreRebuiltFromIsRead) {
  const ModelSpec model = catalog("llama-2-7b-hf");
  const auto cached = [&](CacheScheme scheme, std::string_view part) {
    std::vector<Op> ops;
    LatencySettings settings;
    settings.scheme = scheme;
    StepOps(model, settings).emit({.n_cached_tokens = 3999}, ops);
    return op_of(ops, part).cache.value();
  };
  const double keys = 4000.0 * 4096.0 * 2.0;  // of one layer, 16 bits
  EXPECT_EQ(cached(CacheScheme::k_only, "attention"), 2.0 * keys);
  EXPECT_EQ(cached(CacheScheme::residual, "rebuild k v"), keys);
}

// DeepSeek-V3, 8 replicas that share experts: a decode step of 4 sequences each has 32 tokens at 8
// of 256 experts, a prompt of 1,000 alone its own and 7 of the idle replicas.
TEST(StepOps, ReplicasDecodeTogetherAndAPromptIsAlone) {
  LatencySettings settings;
  settings.expert_parallel = 8;
  settings.data_parallel = 8;
  const StepOps plan(catalog("deepseek-v3"), settings);
  const double per_token = 3.0 * 2.0 * 7168.0 * 2048.0 * 8.0 / 8.0;  // of one rank
  std::vector<Op> ops;
  plan.emit({.n_sequences = 4, .n_cached_tokens = 999}, ops);
  EXPECT_NEAR(op_of(ops, "experts").cost.flops.value(), 32.0 * per_token, 0.01 * 32.0 * per_token);
  plan.emit({.phase = Phase::prefill, .n_new_tokens = 1000}, ops);
  EXPECT_NEAR(
      op_of(ops, "experts").cost.flops.value(), 1007.0 * per_token, 0.01 * 1007.0 * per_token);
}

}  // namespace
}  // namespace kvfathom
