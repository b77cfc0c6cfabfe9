// Both device kernels against the reference.

#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/kernels/decode_attention/decode_attention_launched.h"
#include "tests/kernels/support/old_device.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

bool is_right(DecodeAttentionCase& data,
              int n_splits,
              DecodeKernel kernel,
              const Change& change = {}) {
  const auto want = data.expected(roundings_of(data.cache.spec().format, kernel));
  const std::vector<float> got = launched(data, n_splits, kernel, change);
  return compare<float>(got, want.out, want.bound).holds();
}

void expect_right(DecodeAttentionCase& data, int n_splits, DecodeKernel kernel) {
  SCOPED_TRACE(kernel_name(kernel) + " " + std::string(name(data.cache.spec().format)) + " D" +
               std::to_string(data.cache.spec().k_dim) + " splits " + std::to_string(n_splits));
  const auto want = data.expected(roundings_of(data.cache.spec().format, kernel));
  const std::vector<float> got = launched(data, n_splits, kernel);
  EXPECT_TRUE(close_to<float>(got, want.out, want.bound));
}

class DecodeAttentionFormats : public testing::TestWithParam<KvFormat> {};

TEST_P(DecodeAttentionFormats, EveryHeadSize) {
  SKIP_WITHOUT_DEVICE();
  for (const int head_dim : {64, 80, 96, 128, 192, 256}) {
    if (is_built(GetParam(), head_dim)) {
      DecodeAttentionSpec spec = spec_of(GetParam(), head_dim, 2, 3, {77, 18});
      spec.cache.page_tokens = 16;
      DecodeAttentionCase data(spec);
      expect_right(data, 2, DecodeKernel::cuda_cores);
      expect_right(data, 2, DecodeKernel::tensor_cores);
    }
  }
}

// Tiles of 16 tokens, strides of 64, pages of 32, runs that end on and beside all of them.
TEST_P(DecodeAttentionFormats, EveryLength) {
  SKIP_WITHOUT_DEVICE();
  for (const int page_tokens : {0, 32}) {
    DecodeAttentionSpec spec =
        spec_of(GetParam(), 64, 1, 2, {0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129});
    spec.cache.page_tokens = page_tokens;
    DecodeAttentionCase data(spec);
    for (const DecodeKernel kernel : kBothKernels) {
      for (const int n_splits : {1, 3}) {
        expect_right(data, n_splits, kernel);
      }
    }
  }
}

TEST_P(DecodeAttentionFormats, LengthsByHeadWindowsAndSinks) {
  SKIP_WITHOUT_DEVICE();
  DecodeAttentionSpec spec = spec_of(GetParam(), 96, 3, 4, {70, 0, 5, 33, 39, 40});
  spec.cache.lengths_per_head = true;
  spec.cache.page_tokens = 8;
  spec.cache.token_major = true;
  spec.sink_logits = true;
  for (const auto& [window, sinks] : {std::pair{0, 0}, {1, 0}, {17, 4}, {32, 7}, {38, 2}}) {
    spec.window_tokens = window;
    spec.sink_tokens = sinks;
    DecodeAttentionCase data(spec);
    expect_right(data, 1, DecodeKernel::cuda_cores);
    expect_right(data, 2, DecodeKernel::cuda_cores);
    expect_right(data, 1, DecodeKernel::tensor_cores);
    expect_right(data, 2, DecodeKernel::tensor_cores);
  }
}

// Scores far beyond what a model makes: weights from 1 to 0 and nothing in between.
TEST_P(DecodeAttentionFormats, ExtremeScores) {
  SKIP_WITHOUT_DEVICE();
  DecodeAttentionSpec spec = spec_of(GetParam(), 128, 2, 5, {50});
  spec.q_deviation = 100.0F;
  DecodeAttentionCase data(spec);
  for (const DecodeKernel kernel : kBothKernels) {
    expect_right(data, 2, kernel);
  }
}

INSTANTIATE_TEST_SUITE_P(,
                         DecodeAttentionFormats,
                         testing::ValuesIn(kAllKvFormats),
                         [](const auto& format) { return std::string(name(format.param)); });

// Ratios that are no powers of two, with more than one KV head: a padded group that spills into
// its neighbour shows only then (llama.cpp #19112).
TEST(DecodeAttention, EveryRatio) {
  SKIP_WITHOUT_DEVICE();
  for (const int ratio : {1, 2, 4, 5, 7, 8, 12, 16, 17, 20, 32}) {
    DecodeAttentionCase data(spec_of(KvFormat::f16, 64, 3, ratio, {41, 16}));
    for (const DecodeKernel kernel : kBothKernels) {
      expect_right(data, 2, kernel);
    }
  }
}

// A token that takes all the weight cannot be dropped or misplaced unnoticed.
TEST(DecodeAttention, DominantTokensAtEveryEdge) {
  SKIP_WITHOUT_DEVICE();
  constexpr int kLength = 200;
  for (const int token : {0, 15, 16, 31, 32, 63, 64, 95, 96, 111, 112, kLength - 1}) {
    DecodeAttentionSpec spec = spec_of(KvFormat::bf16, 64, 2, 5, {kLength, 130});
    spec.cache.page_tokens = 32;
    DecodeAttentionCase data(spec);
    data.plant_dominant(0, 3, token);
    data.plant_dominant(1, 9, std::min(token, 129));
    for (const DecodeKernel kernel : kBothKernels) {
      expect_right(data, 2, kernel);
      expect_right(data, 5, kernel);
    }
  }
}

TEST(DecodeAttention, WindowEdgesAreExact) {
  SKIP_WITHOUT_DEVICE();
  constexpr int kLength = 100;
  DecodeAttentionSpec spec = spec_of(KvFormat::bf16, 64, 1, 2, {kLength});
  spec.window_tokens = 40;
  spec.sink_tokens = 3;
  for (const int token : {0, 2, 3, 59, 60, 99}) {  // 3 and 59 are just outside
    DecodeAttentionCase data(spec);
    data.plant_dominant(0, 1, token);
    for (const DecodeKernel kernel : kBothKernels) {
      expect_right(data, 3, kernel);
    }
  }
}

// V's scales meet the softmax weights as binary16: neither tiny nor growing ones may vanish.
TEST(DecodeAttention, TokenScalesOfEverySize) {
  SKIP_WITHOUT_DEVICE();
  DecodeAttentionCase data(spec_of(KvFormat::int8_token, 64, 1, 3, {150, 40}));
  RandomData random(5);
  for (int token = 0; token < 150; ++token) {
    const float size = std::exp2(static_cast<float>(token % 70) - 60.0F);
    data.cache.set_value(0, 0, token, random.normals(64, size));
  }
  for (int token = 0; token < 40; ++token) {
    data.cache.set_value(1, 0, token, std::vector<float>(64, 0.0F));
  }
  for (const DecodeKernel kernel : kBothKernels) {
    expect_right(data, 2, kernel);
  }
}

TEST(DecodeAttention, WrongArgumentsAreNoticed) {
  SKIP_WITHOUT_DEVICE();
  DecodeAttentionSpec spec = spec_of(KvFormat::bf16, 64, 2, 5, {97, 97});
  spec.cache.page_tokens = 16;
  DecodeAttentionCase data(spec);
  data.plant_dominant(1, 7, 96);
  const DeviceArray<std::int32_t> one_short(std::vector<std::int32_t>{96, 96});
  const std::pair<const char*, Change> mutations[] = {
      {"a token dropped", [&](auto& p) { p.cache.lengths = one_short.data(); }},
      {"scale 1 % off", [](auto& p) { p.softmax_scale *= 1.01F; }},
      {"heads mapped as if there were one KV head", [](auto& p) { p.cache.n_kv_heads = 1; }},
      {"K of the other KV head", [](auto& p) { p.cache.k.head_stride_bytes = 0; }},
      {"V of the other KV head", [](auto& p) { p.cache.v.head_stride_bytes = 0; }},
      {"the other sequence's pages", [](auto& p) { p.cache.pages_per_sequence = 0; }},
      {"pages read in a row", [](auto& p) { p.cache.log2_page_tokens = 3; }},
      {"a window", [](auto& p) { p.window_tokens = 96; }},
      {"V for K", [](auto& p) { p.cache.k.data = p.cache.v.data; }},
      {"f16 for bf16", [](auto& p) { p.cache.format = KvFormat::f16; }},
  };
  for (const DecodeKernel kernel : kBothKernels) {
    EXPECT_TRUE(is_right(data, 2, kernel));
    for (const auto& [what, mutation] : mutations) {
      EXPECT_FALSE(is_right(data, 2, kernel, mutation)) << what << " " << kernel_name(kernel);
    }
  }
}

TEST(DecodeAttention, WrongScalesAreNoticed) {
  SKIP_WITHOUT_DEVICE();
  for (const KvFormat format : {KvFormat::q8_0, KvFormat::q4_0, KvFormat::int8_token}) {
    DecodeAttentionCase data(spec_of(format, 64, 2, 5, {70}));
    for (const DecodeKernel kernel : kBothKernels) {
      EXPECT_TRUE(is_right(data, 2, kernel));
      EXPECT_FALSE(
          is_right(data, 2, kernel, [](auto& p) { p.cache.k.scale_token_stride_bytes = 0; }))
          << name(format) << " " << kernel_name(kernel);
      EXPECT_FALSE(
          is_right(data, 2, kernel, [](auto& p) { p.cache.v.scale_token_stride_bytes = 0; }))
          << name(format) << " " << kernel_name(kernel);
    }
  }
  DecodeAttentionCase fp8(spec_of(KvFormat::fp8_e4m3, 64, 2, 5, {70}));
  for (const DecodeKernel kernel : kBothKernels) {
    EXPECT_TRUE(is_right(fp8, 2, kernel));
    EXPECT_FALSE(is_right(fp8, 2, kernel, [](auto& p) { p.cache.k.scales += 4; }));
  }
}

TEST(DecodeAttention, OldDevicesTakeTheCudaCores) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "this device is what it is";
  }
  const PretendedSm75 turing;
  DecodeAttentionCase bf16(spec_of(KvFormat::bf16, 256, 2, 16, {70}));
  DecodeAttentionCase q8_0(spec_of(KvFormat::q8_0, 128, 2, 16, {70}));
  EXPECT_EQ(decode_attention_kernel(bf16.host_params(), DecodeKernel::automatic, device()),
            DecodeKernel::cuda_cores);
  EXPECT_EQ(decode_attention_kernel(q8_0.host_params(), DecodeKernel::automatic, device()),
            DecodeKernel::tensor_cores);
  const auto want = bf16.expected(roundings_of(KvFormat::bf16, DecodeKernel::cuda_cores));
  EXPECT_TRUE(close_to<float>(launched(bf16, 2, DecodeKernel::automatic), want.out, want.bound));
  EXPECT_THROW(launched(bf16, 1, DecodeKernel::tensor_cores), UnsupportedShape);
}

TEST(DecodeAttention, RefusesWhatItHasNotBuilt) {
  SKIP_WITHOUT_DEVICE();
  for (const DecodeKernel kernel : kBothKernels) {
    DecodeAttentionCase odd_size(spec_of(KvFormat::bf16, 112, 1, 1, {3}));
    EXPECT_THROW(launched(odd_size, 1, kernel), UnsupportedShape);
    DecodeAttentionCase data(spec_of(KvFormat::bf16, 64, 2, 1, {3}));
    EXPECT_THROW(launched(data, 0, kernel), UnsupportedShape);
    EXPECT_THROW(launched(data, 1, kernel, [](auto& p) { p.n_heads = 3; }), UnsupportedShape);
    EXPECT_THROW(launched(data, 1, kernel, [](auto& p) { p.cache.v.data += 8; }), UnsupportedShape);
  }
}

TEST(DecodeAttention, NoSequencesIsNoWork) {
  SKIP_WITHOUT_DEVICE();
  DecodeAttentionCase data(spec_of(KvFormat::bf16, 64, 2, 1, {}));
  EXPECT_TRUE(launched(data, 2, DecodeKernel::automatic).empty());
}

// ---- the smallest shapes, which also run under ThreadSanitizer ----

TEST(DecodeAttentionSmall, SameResultUnderEverySchedule) {
  SKIP_WITHOUT_DEVICE();
  for (const KvFormat format : {KvFormat::bf16, KvFormat::int8_token, KvFormat::q4_0}) {
    DecodeAttentionCase data(spec_of(format, 64, 2, 5, {83}));
    for (const DecodeKernel kernel : kBothKernels) {
      under_every_schedule([&] { expect_right(data, 2, kernel); });
    }
  }
}

TEST(DecodeAttentionSmall, EverySynchronisationMatters) {
  SKIP_WITHOUT_DEVICE();
  DecodeAttentionCase data(spec_of(KvFormat::bf16, 64, 1, 5, {90}));
  for (const DecodeKernel kernel : kBothKernels) {
    expect_every_sync_matters([&] { return is_right(data, 1, kernel); });
  }
}

}  // namespace
}  // namespace kvfathom::kernels
