#include "kernels/cache_write/cache_write.h"

#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "model/ops/cache_write.h"
#include "tests/kernels/cache_write/cache_write_case.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"

namespace kvfathom::kernels {
namespace {

void expect_exact(Where where) {
  for (const KvFormat format : kAllKvFormats) {
    for (const int dim : {32, 64, 96, 128}) {
      const bool paged = dim != 64;
      const Element element = kAllElements[static_cast<std::size_t>(dim / 32) % 3];
      CacheWriteProblem problem(
          {.cache = cache_write_spec(format, dim, paged), .n_tokens = 13, .element = element});
      problem.write(where);
      EXPECT_TRUE(problem.stored_exactly()) << name(format) << " of " << dim;
    }
  }
}

void expect_rotated(Where where) {
  int round = 0;
  for (const KvFormat format : kAllKvFormats) {
    for (const RopeStyle style : {RopeStyle::halves, RopeStyle::pairs}) {
      for (const int rotary_dim : {64, 128, 34}) {
        CacheWriteProblem problem({.cache = cache_write_spec(format, 128, round % 2 == 0),
                                   .n_tokens = 7,
                                   .rotary_dim = rotary_dim,
                                   .style = style,
                                   .base = round % 3 == 0 ? 1e6 : 1e4,
                                   .element = kAllElements[static_cast<std::size_t>(round) % 3],
                                   .first_position = round % 2 == 0 ? 0 : 1'000'000});
        problem.write(where);
        EXPECT_TRUE(within(problem.compare_keys())) << name(format) << " " << rotary_dim;
        ++round;
      }
    }
  }
}

TEST(Rope, TurnsFollowThePowersOfTheBase) {
  const std::vector<std::uint64_t> turns = rope_turns_per_position(128, 500000.0);
  ASSERT_EQ(turns.size(), 64U);
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const double radians = static_cast<double>(turns[i]) * 0x1p-64 * 2.0 * std::numbers::pi;
    const double want = std::pow(500000.0, -2.0 * static_cast<double>(i) / 128.0);
    EXPECT_NEAR(radians, want, want * 1e-15 + 0x1p-61);  // turns are rounded to 2^-65
  }
  EXPECT_THROW(static_cast<void>(rope_turns_per_position(7, 1e4)), UnsupportedShape);
}

TEST(Rope, AnglesWrapExactly) {
  const std::uint64_t quarter = 1ULL << 62;
  EXPECT_EQ(rope_turns(quarter, 1), 0.25F);
  EXPECT_EQ(rope_turns(quarter, 1'000'001), 0.25F);
  EXPECT_EQ(rope_turns(quarter, 3), -0.25F);
  EXPECT_EQ(rope_turns(quarter, -1), -0.25F);
}

// Position 0 turns nothing; a quarter turn sends (x, y) to (-y, x).
TEST(CacheWriteReference, ClosedForms) {
  const std::vector<float> k = {1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F};
  const std::vector<std::int32_t> sequence = {0};
  const std::vector<std::uint64_t> turns = {1ULL << 62, 0};
  for (const std::int32_t position : {0, 1}) {
    CacheWriteParams params;
    params.n_tokens = 1;
    params.head_dim = 6;
    params.cache.n_kv_heads = 1;
    params.rope = {4, RopeStyle::pairs, turns.data()};
    params.element = Element::f32;
    params.k = k.data();
    params.sequences = params.slots = sequence.data();
    params.positions = &position;
    std::vector<double> rotated(6);
    std::vector<double> magnitude(6);
    cache_write_reference(params, {rotated.data(), magnitude.data()});
    const std::vector<double> want = position == 0 ? std::vector<double>{1, 2, 3, 4, 5, 6}
                                                   : std::vector<double>{-2, 1, 3, 4, 5, 6};
    for (std::size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(rotated[i], want[i], 1e-15);
    }
    params.rope.style = RopeStyle::halves;
    cache_write_reference(params, {rotated.data(), magnitude.data()});
    EXPECT_NEAR(rotated[0], position == 0 ? 1.0 : -3.0, 1e-15);
    EXPECT_NEAR(rotated[2], position == 0 ? 3.0 : 1.0, 1e-15);
  }
}

TEST(CacheWriteCpu, StoresTheBitsOfEncodeRow) {
  expect_exact(Where::cpu);
}
TEST(CacheWriteCpu, RotatesKeys) {
  expect_rotated(Where::cpu);
}

/// Keys are stored, and what lies where values would is left as it was.
void expect_keys_alone(Where where) {
  for (const KvFormat format : kAllKvFormats) {
    CacheWriteProblem problem(
        {.cache = cache_write_spec(format, 64, true), .n_tokens = 7, .rotary_dim = 32});
    const std::vector<double> before = problem.cache().value(1, 2, 2);
    problem.write(where, [](CacheWriteParams& p) { p.v = nullptr; });
    EXPECT_TRUE(within(problem.compare_keys())) << name(format);
    EXPECT_EQ(problem.cache().value(1, 2, 2), before) << name(format);
  }
}
TEST(CacheWriteCpu, StoresKeysAlone) {
  expect_keys_alone(Where::cpu);
}
TEST(CacheWrite, StoresKeysAlone) {
  SKIP_WITHOUT_DEVICE();
  expect_keys_alone(Where::device);
}
TEST(CacheWrite, StoresTheBitsOfEncodeRow) {
  SKIP_WITHOUT_DEVICE();
  expect_exact(Where::device);
}
TEST(CacheWrite, RotatesKeys) {
  SKIP_WITHOUT_DEVICE();
  expect_rotated(Where::device);
}

// Ties, zeros, halves, both signs of the extreme, subnormals and what overflows the format.
TEST(CacheWrite, AwkwardRowsHaveTheBitsOfEncodeRow) {
  std::vector<std::vector<float>> rows(7, std::vector<float>(64, 0.0F));
  for (std::size_t i = 0; i < 64; ++i) {
    const float x = static_cast<float>(i);
    rows[1][i] = i % 2 == 0 ? 3.0F : -3.0F;                  // the first extreme is positive
    rows[2][i] = i % 2 == 0 ? -3.0F : 3.0F;                  // ... negative
    rows[3][i] = i == 63 ? 127.0F : x - 31.5F;               // halves of the q8_0 step
    rows[4][i] = std::ldexp(1.0F + x / 64.0F, -20);          // subnormal in f16
    rows[5][i] = (i % 2 == 0 ? 1.0F : -1.0F) * x * 3000.0F;  // beyond f16 and e4m3
    rows[6][i] = i % 3 == 0 ? -0.0F : std::ldexp(x, -149);
  }
  for (const KvFormat format : kAllKvFormats) {
    for (const std::vector<float>& row : rows) {
      for (const Where where : places()) {
        KvCacheSpec of;
        of.format = format;
        of.lengths = {1};
        KvCacheData cache(of);
        KvCacheData expected(of);
        expected.set_key(0, 0, 0, row);
        expected.set_value(0, 0, 0, row);
        const std::vector<std::int32_t> zero = {0};
        CacheWriteParams params{.n_tokens = 1, .head_dim = 64, .cache = cache.host()};
        params.element = Element::f32;
        params.k = params.v = row.data();
        params.sequences = params.slots = zero.data();
        if (where == Where::cpu) {
          cache_write_cpu(params, 1);
        } else {
          const DeviceArray<float> values(row);
          const DeviceArray<std::int32_t> index(zero);
          params.cache = cache.device();
          params.k = params.v = values.data();
          params.sequences = params.slots = index.data();
          cache_write_launch(params);
          synchronize();
          cache.download();
        }
        EXPECT_EQ(cache.bytes(), expected.bytes()) << name(format) << " " << &row - rows.data();
      }
    }
  }
}

TEST(CacheWrite, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  const CacheWriteCase rotated{.cache = cache_write_spec(KvFormat::q8_0, 64, true),
                               .rotary_dim = 32};
  const std::vector<std::int32_t> later = {1, 8, 15, 22, 29};
  const std::vector<std::uint64_t> other_base = rope_turns_per_position(32, 10100.0);
  const DeviceArray<std::int32_t> device_later(later);
  const DeviceArray<std::uint64_t> device_base(other_base);
  for (const auto& mutate : std::vector<std::function<void(CacheWriteParams&)>>{
           [&](CacheWriteParams& p) { p.positions = device_later.data(); },
           [&](CacheWriteParams& p) { p.rope.turns_per_position = device_base.data(); },
           [](CacheWriteParams& p) { p.rope.style = RopeStyle::pairs; },
           [](CacheWriteParams& p) { p.rope.rotary_dim = 30; },
           [](CacheWriteParams& p) { std::swap(p.k, p.v); },
           [](CacheWriteParams& p) { p.n_tokens -= 1; }}) {
    CacheWriteCase of = rotated;
    of.cache.format = KvFormat::f16;
    of.first_position = 5000;
    CacheWriteProblem problem(of);
    problem.write(Where::device, mutate);
    EXPECT_FALSE(problem.compare_keys().holds());
  }
  CacheWriteProblem plain({.cache = cache_write_spec(KvFormat::q4_0, 64, false)});
  plain.write(Where::device, [](CacheWriteParams& p) { std::swap(p.k, p.v); });
  EXPECT_FALSE(plain.stored_exactly());
}

TEST(CacheWriteSmall, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    CacheWriteProblem plain(
        {.cache = cache_write_spec(KvFormat::int8_token, 64, true), .n_tokens = 4});
    plain.write(Where::device);
    EXPECT_TRUE(plain.stored_exactly());
    CacheWriteProblem rotated({.cache = cache_write_spec(KvFormat::f16, 64, true),
                               .n_tokens = 4,
                               .rotary_dim = 64,
                               .style = RopeStyle::pairs});
    rotated.write(Where::device);
    EXPECT_TRUE(within(rotated.compare_keys()));
  });
}

TEST(CacheWriteSmall, EverySyncMatters) {
  SKIP_WITHOUT_DEVICE();
  expect_every_sync_matters([] {
    CacheWriteProblem problem({.cache = cache_write_spec(KvFormat::f16, 64, true),
                               .n_tokens = 4,
                               .rotary_dim = 64,
                               .style = RopeStyle::pairs});
    problem.write(Where::device);
    return problem.compare_keys().holds();
  });
}

TEST(CacheWrite, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const KvFormat format : kAllKvFormats) {
    CacheWriteCase of{
        .cache = cache_write_spec(format, 128, true), .n_tokens = 8, .rotary_dim = 64};
    of.element = Element::bf16;
    CacheWriteProblem problem(of);
    CacheWriteShape shape{
        .n_tokens = problem.n_written(),
        .n_kv_heads = 3,
        .head_dim = 128,
        .rotary_dim = 64,
        .stored_row_bytes = row_data_bytes(format, 128) + row_scale_bytes(format, 128)};
    for (const bool has_v : {true, false}) {
      shape.has_v = has_v;
      static_cast<void>(simt::take_traffic());
      problem.write(Where::device, [&](CacheWriteParams& p) { p.v = has_v ? p.v : nullptr; });
      EXPECT_TRUE(moved_bytes_of(cache_write_cost(shape))) << name(format) << " " << has_v;
    }
  }
}

TEST(CacheWrite, RefusesWhatIsNotBuilt) {
  CacheWriteParams params;
  params.cache.format = KvFormat::q8_0;
  params.head_dim = 80;
  EXPECT_THROW(cache_write_cpu(params), UnsupportedShape);
  params.head_dim = 2048;
  EXPECT_THROW(cache_write_cpu(params), UnsupportedShape);
  params.head_dim = 64;
  params.rope.rotary_dim = 66;
  EXPECT_THROW(cache_write_cpu(params), UnsupportedShape);
  params.rope.rotary_dim = 64;
  EXPECT_THROW(cache_write_cpu(params), UnsupportedShape);
}

/// Dequantises a cache and holds it to decode_row: each value is rounded once, so it is exact.
bool dequantises_exactly(const KvCacheSpec& of, Where where) {
  KvCacheData cache(of);
  const int max_tokens = cache.longest() + 1;
  const std::size_t n = static_cast<std::size_t>(cache.n_sequences()) * of.n_kv_heads *
                        static_cast<std::size_t>(max_tokens) * of.k_dim;
  const float untouched = -12345.0F;
  std::vector<float> k(n, untouched);
  std::vector<float> v(n, untouched);
  DequantiseParams params{.head_dim = of.k_dim, .cache = cache.host(), .max_tokens = max_tokens};
  if (where == Where::cpu) {
    params.k = k.data();
    params.v = v.data();
    dequantise_cpu(params, 2);
  } else {
    const DeviceArray<float> device_k(k);
    const DeviceArray<float> device_v(v);
    params.cache = cache.device();
    params.k = device_k.data();
    params.v = device_v.data();
    dequantise_launch(params);
    synchronize();
    k = device_k.to_host();
    v = device_v.to_host();
  }
  bool same = true;
  std::size_t at = 0;
  for (int sequence = 0; sequence < cache.n_sequences(); ++sequence) {
    for (int head = 0; head < of.n_kv_heads; ++head) {
      for (int token = 0; token < max_tokens; ++token) {
        const bool cached = token < cache.length(sequence, head);
        const std::vector<double> blank(of.k_dim, untouched);
        const std::vector<double> key = cached ? cache.key(sequence, head, token) : blank;
        const std::vector<double> value = cached ? cache.value(sequence, head, token) : blank;
        for (int i = 0; i < of.k_dim; ++i, ++at) {
          same = same && k[at] == static_cast<float>(key[i]);
          same = same && v[at] == static_cast<float>(value[i]);
        }
      }
    }
  }
  return same;
}

TEST(Dequantise, GivesTheValuesOfDecodeRow) {
  for (const KvFormat format : kAllKvFormats) {
    for (const int dim : {32, 64, 96, 128}) {
      KvCacheSpec of = cache_write_spec(format, dim, dim != 96);
      of.lengths = dim == 64 ? std::vector<int>{0, 1, 5, 4, 3, 8} : std::vector<int>{0, 4, 7};
      of.lengths_per_head = dim == 64;
      for (const Where where : places()) {
        EXPECT_TRUE(dequantises_exactly(of, where)) << name(format) << " " << dim;
      }
    }
  }
}

TEST(Dequantise, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const KvFormat format : kAllKvFormats) {
    const KvCacheSpec of = cache_write_spec(format, 64, true);
    static_cast<void>(simt::take_traffic());
    EXPECT_TRUE(dequantises_exactly(of, Where::device));
    const CacheWriteShape shape{
        .n_tokens = 9 + 17,
        .n_kv_heads = 3,
        .head_dim = 64,
        .stored_row_bytes = row_data_bytes(format, 64) + row_scale_bytes(format, 64)};
    EXPECT_TRUE(moved_bytes_of(dequantise_cost(shape))) << name(format);
  }
}

}  // namespace
}  // namespace kvfathom::kernels
