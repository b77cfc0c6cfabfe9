#include "calibrate/program/decode_loop.h"

#include <map>
#include <set>
#include <utility>

#include <gtest/gtest.h>

#include "model/latency/step_ops.h"
#include "model/ops/elementwise.h"

namespace kvfathom::calibrate {
namespace {

using kernels::KvFormat;

struct Scheme {
  const char* name;
  LoopCache cache;
  DType dtype = DType::bf16;
  CacheScheme id = CacheScheme::native;
};

constexpr Scheme kBf16{"bf16", {}};
constexpr Scheme kResidual{
    "residual", {.scheme = LoopScheme::residual}, DType::bf16, CacheScheme::residual};
constexpr Scheme kKeys{"k-only", {.scheme = LoopScheme::k_only}, DType::bf16, CacheScheme::k_only};
constexpr Scheme kSchemes[] = {kBf16,
                               {"q8_0", {KvFormat::q8_0}, DType::q8_0},
                               {"q4_0", {KvFormat::q4_0}, DType::q4_0},
                               kResidual};

const LoopShape kDense{.hidden_size = 256,
                       .n_layers = 3,
                       .n_heads = 8,
                       .n_kv_heads = 2,
                       .head_dim = 64,
                       .intermediate_size = 320,
                       .vocab_size = 512};

LoopShape windowed() {
  LoopShape shape = kDense;
  shape.window_tokens = 32;
  return shape;
}

/// A projection of K that is square: keys can stand in for values.
LoopShape square() {
  LoopShape shape = kDense;
  shape.n_heads = shape.n_kv_heads = 4;
  return shape;
}

LoopShape latent() {
  LoopShape shape = kDense;
  shape.latents = {
      .kv_lora_rank = 256, .qk_nope_head_dim = 64, .qk_rope_head_dim = 32, .v_head_dim = 96};
  return shape;
}

LoopShape routed() {
  LoopShape shape = kDense;
  shape.intermediate_size = 96;
  shape.n_experts = 8;
  shape.n_chosen = 2;
  return shape;
}

std::map<OpKind, OpCost> sums_of(const std::vector<LoopOp>& ops) {
  std::map<OpKind, OpCost> sums;
  for (const LoopOp& op : ops) {
    OpCost& sum = sums.try_emplace(op.kind, OpCost{.launches = 0}).first->second;
    sum = sum + op.cost;
  }
  return sums;
}

std::map<OpKind, OpCost> emitted(const LoopShape& shape, const Scheme& scheme, int n_cached) {
  LatencySettings settings;
  settings.scheme = scheme.id;
  settings.cache_type_k = settings.cache_type_v = scheme.dtype;
  const StepOps steps(spec_of(shape), settings);
  std::vector<Op> ops;
  steps.emit({.n_cached_tokens = n_cached}, ops);
  std::vector<LoopOp> all;
  all.reserve(ops.size());
  for (const Op& op : ops) {
    all.push_back({op.op_class.kind, static_cast<int>(op.n_times) * op.cost});
  }
  return sums_of(all);
}

/// What a transformer's loop really calls is what a step is priced as, byte for byte, but for two
/// things that the kernels do otherwise: logits stay in 16 bits, and the norm before the output
/// head, which a step leaves out (it is one of 2 n_layers + 1).
void expect_same(const LoopShape& shape, const Scheme& scheme, int n_cached) {
  DecodeLoop loop(shape, scheme.cache, n_cached + 1, 1);
  std::vector<LoopOp> ops;
  loop.step(7, n_cached, &ops);
  const auto ran = sums_of(ops);
  auto step = emitted(shape, scheme, n_cached);
  const OpCost norm =
      rms_norm_cost({.n_rows = 1, .n_columns = shape.hidden_size, .adds_residual = true});
  step[OpKind::elementwise] = step[OpKind::elementwise] + norm;
  const Bytes logits(2.0 * shape.vocab_size);
  step[OpKind::gemm].written = step[OpKind::gemm].written - (logits);
  const OpCost wide = sample_cost(1, shape.vocab_size);
  const OpCost narrow = sample_cost(1, shape.vocab_size, false, Bytes(2.0));
  step[OpKind::elementwise].read = step[OpKind::elementwise].read - (wide.read - narrow.read);
  step[OpKind::elementwise].written =
      step[OpKind::elementwise].written - (wide.written - narrow.written);
  step[OpKind::elementwise].flops = step[OpKind::elementwise].flops - (wide.flops - narrow.flops);
  ASSERT_EQ(ran.size(), step.size());
  for (const auto& [kind, cost] : ran) {
    ASSERT_TRUE(step.contains(kind)) << name(kind);
    EXPECT_DOUBLE_EQ(cost.read.value(), step[kind].read.value()) << name(kind) << scheme.name;
    EXPECT_DOUBLE_EQ(cost.written.value(), step[kind].written.value()) << name(kind) << scheme.name;
    EXPECT_DOUBLE_EQ(cost.flops.value(), step[kind].flops.value()) << name(kind) << scheme.name;
    EXPECT_EQ(cost.launches, step[kind].launches) << name(kind) << scheme.name;
  }
}

TEST(DecodeLoop, RunsWhatAStepOfADenseModelIsPricedAs) {
  for (const Scheme& scheme : kSchemes) {
    expect_same(kDense, scheme, 100);
    expect_same(kDense, scheme, 1);
  }
}

TEST(DecodeLoop, RunsWhatAStepOfAMixtureIsPricedAs) {
  for (const Scheme& scheme : kSchemes) {
    expect_same(routed(), scheme, 100);
  }
}

TEST(DecodeLoop, RunsWhatAStepOfOtherSchemesIsPricedAs) {
  for (const int n_cached : {1, 31, 32, 100}) {
    expect_same(windowed(), kBf16, n_cached);
    expect_same(square(), kKeys, n_cached);
    expect_same(latent(), kBf16, n_cached);
  }
}

/// The layers of a prompt's chunk; the norm before the output head and the head are not among them.
void expect_same_prompt(const LoopShape& shape, int n_tokens, int n_cached) {
  DecodeLoop loop(shape, {}, n_cached + n_tokens, 1);
  std::vector<LoopOp> ran_ops;
  loop.prompt(n_tokens, n_cached, shape.n_layers, &ran_ops);
  const auto ran = sums_of(ran_ops);
  LatencySettings settings;
  std::vector<Op> ops;
  StepOps(spec_of(shape), settings)
      .emit({.phase = Phase::prefill, .n_new_tokens = n_tokens, .n_cached_tokens = n_cached}, ops);
  std::vector<LoopOp> all;
  for (const Op& op : ops) {
    if (op.part != "output head" && op.part != "sample") {
      all.push_back({op.op_class.kind, static_cast<int>(op.n_times) * op.cost});
    }
  }
  const auto priced = sums_of(all);
  ASSERT_EQ(ran.size(), priced.size());
  for (const auto& [kind, cost] : ran) {
    ASSERT_TRUE(priced.contains(kind)) << name(kind);
    const OpCost& want = priced.at(kind);
    EXPECT_DOUBLE_EQ(cost.read.value(), want.read.value()) << name(kind);
    EXPECT_DOUBLE_EQ(cost.written.value(), want.written.value()) << name(kind);
    EXPECT_DOUBLE_EQ(cost.flops.value(), want.flops.value()) << name(kind);
    EXPECT_EQ(cost.launches, want.launches) << name(kind);
  }
}

TEST(DecodeLoop, RunsWhatAPromptIsPricedAs) {
  for (const LoopShape& shape : {kDense, routed()}) {
    expect_same_prompt(shape, 33, 0);
    expect_same_prompt(shape, 20, 33);
    expect_same_prompt(shape, 1, 0);
  }
}

std::vector<std::int32_t> decoded(const LoopShape& shape,
                                  const Scheme& scheme,
                                  std::int32_t first) {
  DecodeLoop loop(shape, scheme.cache, 40, 1);
  std::vector<std::int32_t> tokens{first};
  for (int n_cached = 0; n_cached < 30; ++n_cached) {
    tokens.push_back(loop.step(tokens.back(), n_cached));
  }
  return tokens;
}

TEST(DecodeLoop, DecodesTokensThatFollowFromWhatIsCached) {
  std::vector<std::pair<LoopShape, Scheme>> loops{
      {windowed(), kBf16}, {square(), kKeys}, {latent(), kBf16}};
  for (const Scheme& scheme : kSchemes) {
    loops.emplace_back(kDense, scheme);
  }
  for (const auto& [shape, scheme] : loops) {
    const auto tokens = decoded(shape, scheme, 7);
    EXPECT_EQ(tokens, decoded(shape, scheme, 7)) << scheme.name;
    EXPECT_NE(tokens, decoded(shape, scheme, 8)) << scheme.name;
    EXPECT_GT(std::set<std::int32_t>(tokens.begin(), tokens.end()).size(), 3U) << scheme.name;
  }
}

/// What is rebuilt of a layer's inputs is what was cached: the same tokens, but for roundings that
/// differ.
TEST(DecodeLoop, RebuiltKeysAndValuesAreThoseThatWereCached) {
  DecodeLoop cached(kDense, {}, 40, 1);
  DecodeLoop rebuilt(kDense, kResidual.cache, 40, 1);
  std::int32_t token = 7;
  int n_same = 0;
  constexpr int kSteps = 30;
  for (int n_cached = 0; n_cached < kSteps; ++n_cached) {
    const std::int32_t next = cached.step(token, n_cached);
    n_same += rebuilt.step(token, n_cached) == next ? 1 : 0;
    token = next;
  }
  EXPECT_GE(n_same, kSteps - 3);
}

}  // namespace
}  // namespace kvfathom::calibrate
