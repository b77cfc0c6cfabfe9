// The reference against closed forms: everything else is held to the reference.
#include <cmath>

#include <gtest/gtest.h>

#include "tests/kernels/decode_attention/decode_attention_case.h"

namespace kvfathom::kernels {
namespace {

DecodeAttentionSpec small_spec(std::vector<int> lengths) {
  DecodeAttentionSpec spec;
  spec.cache = {.n_kv_heads = 2, .k_dim = 32, .v_dim = 32, .lengths = std::move(lengths)};
  spec.heads_per_kv_head = 3;
  return spec;
}

struct ReferenceRun {
  std::vector<double> out, abs_out, score;
  int head_dim;
  [[nodiscard]] std::vector<double> row(int index) const {
    return {out.begin() + static_cast<std::ptrdiff_t>(index) * head_dim,
            out.begin() + static_cast<std::ptrdiff_t>(index + 1) * head_dim};
  }
};

ReferenceRun run(const DecodeAttentionCase& data) {
  const DecodeAttentionParams params = data.host_params();
  const std::size_t n = data.out_size();
  ReferenceRun r{std::vector<double>(n, NAN),
                 std::vector<double>(n, NAN),
                 std::vector<double>(n / params.head_dim, NAN),
                 params.head_dim};
  decode_attention_reference(params, {r.out.data(), r.abs_out.data(), r.score.data()});
  return r;
}

void expect_rows_near(const std::vector<double>& got,
                      const std::vector<double>& want,
                      double bound = 1e-12) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], bound) << i;
  }
}

TEST(DecodeAttentionReference, OneTokenGivesItsValueOfTheRightKvHead) {
  const DecodeAttentionCase data(small_spec({1, 1}));
  const ReferenceRun r = run(data);
  for (int sequence = 0; sequence < 2; ++sequence) {
    for (int head = 0; head < 6; ++head) {
      expect_rows_near(r.row(sequence * 6 + head), data.cache.value(sequence, head / 3, 0));
    }
  }
}

TEST(DecodeAttentionReference, EqualScoresGiveTheMean) {
  DecodeAttentionSpec spec = small_spec({5});
  spec.q_deviation = 0.0F;
  const DecodeAttentionCase data(spec);
  const ReferenceRun r = run(data);
  std::vector<double> mean(32, 0.0);
  for (int token = 0; token < 5; ++token) {
    for (int i = 0; i < 32; ++i) {
      mean[i] += data.cache.value(0, 1, token)[i] / 5.0;
    }
  }
  expect_rows_near(r.row(5), mean);
}

TEST(DecodeAttentionReference, ASinkLogitTakesItsShareOfTheWeight) {
  DecodeAttentionSpec spec = small_spec({1});
  spec.q_deviation = 0.0F;
  const DecodeAttentionCase data(spec);
  DecodeAttentionParams params = data.host_params();
  const std::vector<float> logits(6, std::log(3.0F));  // weight 3 beside the token's 1
  params.sink_logits = logits.data();
  std::vector<double> out(data.out_size()), abs_out(data.out_size()), score(6);
  decode_attention_reference(params, {out.data(), abs_out.data(), score.data()});
  for (int i = 0; i < 32; ++i) {
    EXPECT_NEAR(out[i], data.cache.value(0, 0, 0)[i] / 4.0, 1e-7);
  }
}

TEST(DecodeAttentionReference, ADominantKeyGivesItsValue) {
  DecodeAttentionCase data(small_spec({9}));
  data.plant_dominant(0, 4, 6);
  expect_rows_near(run(data).row(4), data.cache.value(0, 1, 6), 1e-6);
}

TEST(DecodeAttentionReference, AnEmptySequenceGivesZeros) {
  DecodeAttentionSpec spec = small_spec({0, 2});
  spec.sink_logits = true;
  const ReferenceRun r = run(DecodeAttentionCase(spec));
  for (int head = 0; head < 6; ++head) {
    expect_rows_near(r.row(head), std::vector<double>(32, 0.0));
  }
}

TEST(DecodeAttentionReference, MagnitudesAreThoseOfTheirDefinition) {
  const DecodeAttentionCase data(small_spec({1}));
  const ReferenceRun r = run(data);
  const std::vector<float> q = data.query(0, 0);
  const std::vector<double> k = data.cache.key(0, 0, 0);
  double score = 0.0;
  for (int i = 0; i < 32; ++i) {
    score += std::fabs(q[i] * k[i]) * data.host_params().softmax_scale;
    EXPECT_NEAR(r.abs_out[i], std::fabs(data.cache.value(0, 0, 0)[i]), 1e-12);
  }
  EXPECT_NEAR(r.score[0], score, 1e-12);
}

// A window with sinks is attention over a cache that never held the other tokens.
TEST(DecodeAttentionReference, AWindowIsAShorterCache) {
  DecodeAttentionSpec spec = small_spec({11});
  spec.window_tokens = 4;
  spec.sink_tokens = 2;
  const DecodeAttentionCase windowed(spec);
  DecodeAttentionCase kept(small_spec({6}));
  const auto as_float = [](const std::vector<double>& row) {
    return std::vector<float>(row.begin(), row.end());
  };
  for (int head = 0; head < 2; ++head) {
    for (int i = 0; i < 6; ++i) {
      const int token = i < 2 ? i : i + 5;
      kept.cache.set_key(0, head, i, as_float(windowed.cache.key(0, head, token)));
      kept.cache.set_value(0, head, i, as_float(windowed.cache.value(0, head, token)));
    }
  }
  expect_rows_near(run(windowed).out, run(kept).out);
}

TEST(DecodeAttentionReference, ResultsDoNotDependOnWhereRowsLie) {
  for (const KvFormat format : kAllKvFormats) {
    DecodeAttentionSpec spec = small_spec({7, 0, 3, 12});
    spec.cache.lengths_per_head = true;  // two sequences of two KV heads
    spec.cache.format = format;
    const std::vector<double> contiguous = run(DecodeAttentionCase(spec)).out;
    spec.cache.page_tokens = 4;
    EXPECT_EQ(run(DecodeAttentionCase(spec)).out, contiguous) << name(format);
    spec.cache.token_major = true;
    EXPECT_EQ(run(DecodeAttentionCase(spec)).out, contiguous) << name(format);
    spec.cache.page_tokens = 0;
    EXPECT_EQ(run(DecodeAttentionCase(spec)).out, contiguous) << name(format);
  }
}

TEST(DecodeAttentionReference, RefusesHeadsThatDoNotDivide) {
  const DecodeAttentionCase data(small_spec({1}));
  DecodeAttentionParams params = data.host_params();
  params.n_heads = 5;
  EXPECT_ANY_THROW(decode_attention_reference(params, {}));
}

}  // namespace
}  // namespace kvfathom::kernels
