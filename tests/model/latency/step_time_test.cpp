#include "model/latency/step_time.h"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "model/error.h"
#include "model/io/hardware_json.h"
#include "model/latency/datasheet_laws.h"
#include "model/latency/generation.h"
#include "tests/model/catalog.h"

namespace kvfathom {
namespace {

using testing::catalog;

const Law kLaw{.fixed = Seconds(1e-6),
               .wave = Seconds(2e-6),
               .bandwidth = BytesPerSecond(1e12),
               .flops = FlopsPerSecond(1e14),
               .p = 2.0};

/// One law for everything, off by half a percent.
class OneLaw final : public LawSource {
 public:
  [[nodiscard]] PricedClass law(const OpClass& /*op_class*/, bool /*on_host*/) const override {
    ++asked;
    return {.op_class = {},
            .law = kLaw,
            .launch = Seconds(3e-6),
            .log_error = 0.005,
            .provenance = Provenance::measured,
            .origin = "test"};
  }
  [[nodiscard]] EngineGaps gaps() const override { return {Seconds(1e-3), Seconds(1e-5)}; }
  [[nodiscard]] std::int64_t n_units() const override { return 100; }
  mutable int asked = 0;
};

TEST(StepPricer, SumsOperationsAndGaps) {
  const OneLaw source;
  StepPricer pricer(source);
  // 101 blocks on 100 units are two waves.
  const Op op{.op_class = {.kind = OpKind::gemm},
              .part = "a",
              .cost = {.read = Bytes(1e9), .written = Bytes(1e9)},
              .n_blocks = 101,
              .n_times = 10,
              .weights = Bytes(1.5e9)};
  const std::vector<Op> ops{op, op};
  const StepTime step = pricer.price(ops, 4, true);
  const double one = 2e-3 + 1e-6 + 2.0 * 2e-6 + 3e-6;
  EXPECT_NEAR(step.time_s.value, 20.0 * one + 1e-3 + 4e-5, 1e-12);
  EXPECT_EQ(step.bound, BoundBy::weights);
  EXPECT_EQ(step.time_s.provenance, Provenance::measured);
  EXPECT_EQ(source.asked, 1);  // both are of one class
  ASSERT_EQ(step.ops.size(), 2U);
  EXPECT_NEAR(step.ops[1].time.value(), 10.0 * one, 1e-12);
  // The share of the one class is a little less than the whole: so is the interval.
  EXPECT_LT(std::log(step.time_s.high / step.time_s.value), 0.005);
  EXPECT_GT(std::log(step.time_s.high / step.time_s.value), 0.0045);
}

TEST(StepPricer, ErrorsOfDifferentClassesAverageOut) {
  const OneLaw source;
  StepPricer pricer(source);
  Op gemm{.op_class = {.kind = OpKind::gemm}, .part = "a", .cost = {.read = Bytes(1e12)}};
  Op attention = gemm;
  attention.op_class.kind = OpKind::decode_attention;
  const StepTime step = pricer.price(std::vector<Op>{gemm, attention}, 0, false);
  EXPECT_NEAR(std::log(step.time_s.high / step.time_s.value), 0.005 / std::sqrt(2.0), 1e-5);
}

// Outside of what was measured the law is believed, not tested.
TEST(StepPricer, IsLessSureOutsideOfWhatWasMeasured) {
  class Ranged final : public LawSource {
   public:
    [[nodiscard]] PricedClass law(const OpClass& /*op_class*/, bool /*on_host*/) const override {
      return {.op_class = {},
              .law = {.bandwidth = BytesPerSecond(1e12)},
              .log_error = 0.2,
              .range = WorkRange{.bytes = {1e6, 1e9}, .flops = {}, .waves = {}},
              .provenance = Provenance::measured,
              .origin = "test"};
    }
    [[nodiscard]] EngineGaps gaps() const override { return {}; }
    [[nodiscard]] std::int64_t n_units() const override { return 0; }
  };
  const Ranged source;
  StepPricer pricer(source);
  const auto priced = [&](double bytes) {
    const Op op{.op_class = {.kind = OpKind::gemm}, .part = "a", .cost = {.read = Bytes(bytes)}};
    return pricer.price(std::vector<Op>{op}, 0, false).time_s;
  };
  const Estimate inside = priced(1e9);
  EXPECT_NEAR(inside.high / inside.value, std::exp(0.2), 1e-12);
  EXPECT_NEAR(inside.low / inside.value, std::exp(-0.2), 1e-12);
  EXPECT_EQ(inside.provenance, Provenance::measured);
  const Estimate two_doublings_beyond = priced(4e9);
  EXPECT_NEAR(two_doublings_beyond.high / two_doublings_beyond.value, std::exp(0.6), 1e-12);
  EXPECT_EQ(two_doublings_beyond.provenance, Provenance::modelled);
}

HardwareSpec gpu(const std::string& id) {
  return read_hardware(std::string(KVFATHOM_SOURCE_DIR) + "/data/hardware/" + id + ".json");
}

struct Published {
  const char* model;
  const char* gpu;
  std::int64_t cached_tokens;
  std::int64_t sequences;
  double tpot_s;
};

// github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference (llama-bench, May 2024, f16 weights;
// tokens/s averaged over 4096 tokens from an empty cache, so at a mean depth of 2048).
TEST(DatasheetLaws, CoverPublishedDecodeSteps) {
  const Published rows[] = {
      {"meta-llama-3-8b", "rtx-a6000", 2048, 1, 1.0 / 39.14},
      {"meta-llama-3-8b", "rtx-6000-ada", 2048, 1, 1.0 / 50.21},
  };
  for (const Published& row : rows) {
    const StepOps steps(catalog(row.model), {});
    const DatasheetLaws laws(gpu(row.gpu));
    Generation generation(steps, laws, 2048);
    const Estimate time = generation.decode(row.cached_tokens, row.sequences).time_s;
    EXPECT_LT(time.low, row.tpot_s);
    EXPECT_GT(time.high, row.tpot_s);
    EXPECT_EQ(time.provenance, Provenance::datasheet);
  }
}

TEST(DatasheetLaws, AFormatRunsAtItsOwnRateWhereTheDeviceHasOne) {
  const HardwareSpec h100 = gpu("h100-sxm");
  // 1979 and 989 TFLOP/s (data sheet, dense).
  EXPECT_NEAR(peak_rate(h100, DType::f8_e4m3)->value(), 1979e12, 1e12);
  EXPECT_NEAR(peak_rate(h100, DType::bf16)->value(), 989e12, 1e12);
  // It multiplies no 4-bit floats: they are widened to 16 bits, whatever it does with 8.
  EXPECT_NEAR(peak_rate(h100, DType::nvfp4)->value(), 989e12, 1e12);
  const HardwareSpec a100 = gpu("a100-sxm4-80gb");
  EXPECT_EQ(peak_rate(a100, DType::f8_e4m3), peak_rate(a100, DType::bf16));
  EXPECT_FALSE(peak_rate(HardwareSpec{}, DType::bf16));
}

TEST(DatasheetLaws, ADeviceWithoutBandwidthIsRefused) {
  EXPECT_THROW(DatasheetLaws{HardwareSpec{}}, InputError);
}

// A ring's all-reduce of n ranks sends 2 (n - 1) / n of the message over each link.
TEST(DatasheetLaws, AllReducesCrossTheLinkAlmostTwice) {
  const HardwareSpec h100 = gpu("h100-sxm");
  const DatasheetLaws laws(h100);
  const Law law = laws.law({.kind = OpKind::all_reduce, .heads_per_kv = 8}, false).law;
  const double s = time(law, {.bytes = Bytes(1e9)}).value();
  EXPECT_NEAR(s, 1.75 * 1e9 / (0.8 * h100.peer_link->bandwidth.value()), 1e-4);
}

TEST(Generation, APromptIsTheSumOfItsChunks) {
  const StepOps steps(catalog("llama-3.1-8b"), {});
  const DatasheetLaws laws(gpu("h100-sxm"));
  Generation whole(steps, laws, 1000);
  const double prompt = whole.prompt(2500).time_s.value;
  const double parts = whole.prompt(1000).time_s.value + whole.prompt(1000, 1000).time_s.value +
                       whole.prompt(500, 2000).time_s.value;
  EXPECT_NEAR(prompt, parts, 1e-12);
}

TEST(Generation, DetailsOfAPromptAddUpToItsTime) {
  const StepOps steps(catalog("llama-3.1-8b"), {});
  const DatasheetLaws laws(gpu("h100-sxm"));
  Generation generation(steps, laws, 512);
  const StepTime step = generation.prompt(2048, 0, 1, true);
  double sum = 0.0;
  double flops = 0.0;
  for (const OpTime& op : step.ops) {
    sum += op.time.value();
    const Op& priced = generation.ops()[op.op];
    flops += static_cast<double>(priced.n_times) * priced.cost.flops.value();
  }
  EXPECT_NEAR(sum + 4.0 * laws.gaps().per_step.value(), step.time_s.value, 1e-12);
  EXPECT_GT(flops, 2.0 * 7.0e9 * 2048.0);
}

// Leviathan et al. (arXiv 2211.17192), table 1: acceptance 0.8 and 5 drafts give 3.69 tokens.
TEST(Generation, SpeculationYieldsAGeometricSum) {
  EXPECT_NEAR(expected_tokens(0.8, 5), 3.69, 0.005);
  EXPECT_DOUBLE_EQ(expected_tokens(1.0, 4), 5.0);
  EXPECT_DOUBLE_EQ(expected_tokens(0.0, 4), 1.0);
}

// DeepSeek-V3's prediction block is one layer of 256 experts, 11.5 B parameters without embedding
// and head (report s2.2: 14 B with them).
TEST(Generation, APredictionBlockIsTheLastLayerAgain) {
  const ModelSpec block = prediction_block(catalog("deepseek-v3"));
  ASSERT_EQ(block.layers.size(), 1U);
  double elements = 0.0;
  for (const Tensor& tensor : block.tensors) {
    elements += tensor.name.starts_with("blk.0.") ? static_cast<double>(n_elements(tensor)) : 0.0;
  }
  EXPECT_NEAR(elements / 1e9, 11.5, 0.1);
  EXPECT_THROW(static_cast<void>(prediction_block(catalog("llama-3.1-8b"))), InputError);
}

// Verifying a draft of three reads weights and cache once, as one token does, and computes four.
TEST(Generation, ADraftIsVerifiedWithOneReadingOfWeightsAndCache) {
  const StepOps steps(catalog("llama-3.1-8b"), {});
  std::vector<Op> one;
  std::vector<Op> four;
  steps.emit({.n_cached_tokens = 8191}, one);
  steps.emit({.n_new_tokens = 4, .n_cached_tokens = 8188}, four);
  ASSERT_EQ(one.size(), four.size());
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].weights, four[i].weights) << one[i].part;
    if (one[i].op_class.kind == OpKind::gemm || one[i].part == "attention") {
      EXPECT_NEAR(four[i].cost.flops / one[i].cost.flops, 4.0, 1e-9) << one[i].part;
    }
    if (one[i].part == "attention") {
      EXPECT_NEAR(four[i].cost.read / one[i].cost.read, 1.0, 1e-2);
    }
  }
}

}  // namespace
}  // namespace kvfathom
