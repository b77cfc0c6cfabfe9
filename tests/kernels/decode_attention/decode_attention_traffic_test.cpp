// The bytes that the kernels are seen to move are those of the model's formula.
#include <string>

#include <gtest/gtest.h>

#include "kernels/simt/emulator_control.h"
#include "model/ops/decode_attention.h"
#include "tests/kernels/decode_attention/decode_attention_launched.h"

namespace kvfathom::kernels {
namespace {

DecodeAttentionShape cost_shape(const DecodeAttentionSpec& spec,
                                int n_splits,
                                DecodeKernel kernel) {
  DecodeAttentionShape shape;
  shape.n_heads = spec.cache.n_kv_heads * spec.heads_per_kv_head;
  shape.n_kv_heads = spec.cache.n_kv_heads;
  shape.head_dim = spec.cache.k_dim;
  shape.lengths.assign(spec.cache.lengths.begin(), spec.cache.lengths.end());
  shape.n_sequences = static_cast<std::int64_t>(spec.cache.lengths.size()) /
                      (spec.cache.lengths_per_head ? spec.cache.n_kv_heads : 1);
  shape.window_tokens = spec.window_tokens;
  shape.sink_tokens = spec.sink_tokens;
  shape.sink_logits = spec.sink_logits;
  shape.row_bytes = row_data_bytes(spec.cache.format, spec.cache.k_dim);
  shape.row_scale_bytes = row_scale_bytes(spec.cache.format, spec.cache.k_dim);
  shape.head_scale_bytes = spec.cache.format == KvFormat::fp8_e4m3 ? 4 : 0;
  shape.n_splits = n_splits;
  shape.heads_per_pass = decode_attention_heads_per_pass(kernel);
  return shape;
}

void expect_the_bytes_of_the_model(const DecodeAttentionSpec& spec) {
  DecodeAttentionCase data(spec);
  for (const int n_splits : {1, 3}) {
    for (const DecodeKernel kernel : kBothKernels) {
      static_cast<void>(simt::take_traffic());
      static_cast<void>(launched(data, n_splits, kernel));
      const simt::Traffic seen = simt::take_traffic().value();
      const OpCost cost = decode_attention_cost(cost_shape(spec, n_splits, kernel));
      const std::string what = "D" + std::to_string(spec.cache.k_dim) + " splits " +
                               std::to_string(n_splits) + " " + kernel_name(kernel);
      EXPECT_EQ(static_cast<double>(seen.read_bytes()), cost.read.value()) << what;
      EXPECT_EQ(static_cast<double>(seen.stored_bytes), cost.written.value()) << what;
      EXPECT_EQ(cost.launches, n_splits == 1 ? 1 : 2);
    }
  }
}

class DecodeAttentionTraffic : public testing::TestWithParam<KvFormat> {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_DEVICE();
    if (!device().emulated) {
      GTEST_SKIP() << "a real device does not count";
    }
  }
};

TEST_P(DecodeAttentionTraffic, EveryHeadSize) {
  for (const int head_dim : {64, 80, 96, 128, 192, 256}) {
    if (is_built(GetParam(), head_dim)) {
      DecodeAttentionSpec spec = spec_of(GetParam(), head_dim, 2, 3, {37, 5});
      spec.cache.page_tokens = 16;
      expect_the_bytes_of_the_model(spec);
    }
  }
}

// More than one pass over K and V, and tokens that no query attends to.
TEST_P(DecodeAttentionTraffic, PassesWindowsAndLengthsByHead) {
  DecodeAttentionSpec spec = spec_of(GetParam(), 96, 2, 18, {75, 20, 64, 1});
  spec.cache.lengths_per_head = true;
  spec.window_tokens = 33;
  spec.sink_tokens = 4;
  spec.sink_logits = true;
  expect_the_bytes_of_the_model(spec);
}

INSTANTIATE_TEST_SUITE_P(,
                         DecodeAttentionTraffic,
                         testing::ValuesIn(kAllKvFormats),
                         [](const auto& format) { return std::string(name(format.param)); });

TEST(DecodeAttentionCost, CountsTheMultiplyAddsOfTheDefinition) {
  DecodeAttentionSpec spec = spec_of(KvFormat::bf16, 128, 8, 4, {1000, 24});
  const OpCost cost = decode_attention_cost(cost_shape(spec, 1, DecodeKernel::tensor_cores));
  EXPECT_EQ(cost.flops.value(), 4.0 * 1024 * 32 * 128);  // q k and p v, 2 each
  EXPECT_EQ(cost.read.value(), 1024.0 * 8 * 2 * 256 + 2 * 32 * 256);
}

}  // namespace
}  // namespace kvfathom::kernels
