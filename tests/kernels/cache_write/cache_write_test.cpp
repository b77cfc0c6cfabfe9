#include "kernels/cache_write/cache_write.h"

#include <cmath>
#include <memory>
#include <numbers>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "model/ops/cache_write.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

enum class Where { cpu, device };

struct Case {
  KvCacheSpec cache;
  int n_tokens = 5;
  int rotary_dim = 0;
  RopeStyle style = RopeStyle::halves;
  double base = 10000.0;
  Element element = Element::f32;
  std::int32_t first_position = 0;
};

std::vector<std::byte> as_bytes(Element element, const std::vector<float>& values) {
  std::vector<std::byte> out(values.size() * static_cast<std::size_t>(element_bytes(element)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t half =
        element == Element::f16 ? to_f16(values[i]).bits : to_bf16(values[i]).bits;
    element == Element::f32 ? std::memcpy(out.data() + 4 * i, &values[i], 4)
                            : std::memcpy(out.data() + 2 * i, &half, 2);
  }
  return out;
}

/// New rows for a cache that is full of other rows; every second token of a sequence is replaced.
class Problem {
 public:
  explicit Problem(const Case& of) : case_(of), cache_(of.cache), expected_(of.cache) {
    RandomData random(99);
    const int dim = of.cache.k_dim;
    const int heads = of.cache.n_kv_heads;
    const std::size_t n = static_cast<std::size_t>(of.n_tokens) * heads * dim;
    k_ = as_bytes(of.element, random.normals(n));
    v_ = as_bytes(of.element, random.normals(n));
    std::vector<int> next(cache_.n_sequences(), 0);
    for (int token = 0; token < of.n_tokens; ++token) {
      const int sequence = token % (cache_.n_sequences() + 1) - 1;  // each round has a padding row
      sequences_.push_back(sequence);
      slots_.push_back(sequence < 0 ? 0 : next[sequence]);
      if (sequence >= 0) {
        next[sequence] += 2;
      }
      positions_.push_back(of.first_position + 7 * token);
    }
    turns_ = rope_turns_per_position(of.rotary_dim, of.base);
  }

  CacheWriteParams params(const KvCacheView& view) const {
    return CacheWriteParams{.n_tokens = case_.n_tokens,
                            .head_dim = case_.cache.k_dim,
                            .cache = view,
                            .rope = {case_.rotary_dim, case_.style, turns_.data()},
                            .element = case_.element,
                            .k = k_.data(),
                            .v = v_.data(),
                            .sequences = sequences_.data(),
                            .slots = slots_.data(),
                            .positions = positions_.data()};
  }

  /// Writes with `mutate` applied to the arguments.
  void write(Where where, const std::function<void(CacheWriteParams&)>& mutate = {}) {
    if (where == Where::cpu) {
      CacheWriteParams p = params(cache_.host());
      if (mutate) {
        mutate(p);
      }
      cache_write_cpu(p, 2);
      return;
    }
    const DeviceArray<std::byte> k(k_);
    const DeviceArray<std::byte> v(v_);
    const DeviceArray<std::int32_t> sequences(sequences_);
    const DeviceArray<std::int32_t> slots(slots_);
    const DeviceArray<std::int32_t> positions(positions_);
    const DeviceArray<std::uint64_t> turns(turns_);
    CacheWriteParams p = params(cache_.device());
    p.k = k.data();
    p.v = v.data();
    p.sequences = sequences.data();
    p.slots = slots.data();
    p.positions = positions.data();
    p.rope.turns_per_position = turns.data();
    if (mutate) {
      mutate(p);
    }
    cache_write_launch(p);
    synchronize();
    cache_.download();
  }

  /// Without RoPE: the whole cache equals one that encode_row wrote, untouched rows included.
  bool stored_exactly() {
    const int dim = case_.cache.k_dim;
    for_each_row([&](int token, int head, std::int64_t row) {
      std::vector<float> k(dim);
      std::vector<float> v(dim);
      for (int i = 0; i < dim; ++i) {
        k[i] = element_at(case_.element, k_.data(), row + i);
        v[i] = element_at(case_.element, v_.data(), row + i);
      }
      expected_.set_key(sequences_[token], head, slots_[token], k);
      expected_.set_value(sequences_[token], head, slots_[token], v);
    });
    return cache_.bytes() == expected_.bytes();
  }

  /// With RoPE: K as stored against the rotation in double.
  Comparison compare_keys() {
    const int dim = case_.cache.k_dim;
    const std::size_t n = static_cast<std::size_t>(case_.n_tokens) * case_.cache.n_kv_heads * dim;
    std::vector<double> rotated(n);
    std::vector<double> magnitude(n);
    cache_write_reference(params(cache_.host()), {rotated.data(), magnitude.data()});
    std::vector<double> got;
    std::vector<double> want;
    std::vector<double> bound;
    for_each_row([&](int token, int head, std::int64_t row) {
      const std::vector<double> stored = cache_.key(sequences_[token], head, slots_[token]);
      const std::span values = std::span<const double>(rotated).subspan(row, dim);
      for (int i = 0; i < dim; ++i) {
        const int block = i / kQuantBlock * kQuantBlock;
        StoredValue value{.value = values[i], .head_scale = 0.01 + 0.003 * head};
        for (int j = 0; j < dim; ++j) {
          const double size = std::fabs(values[j]);
          value.largest_in_row = std::max(value.largest_in_row, size);
          if (j >= block && j < block + kQuantBlock) {
            value.largest_in_block = std::max(value.largest_in_block, size);
          }
        }
        got.push_back(stored[i]);
        want.push_back(values[i]);
        bound.push_back(storage_bound(case_.cache.format, value) + rope_bound(magnitude[row + i]));
      }
    });
    return compare<double>(got, want, bound);
  }

  KvCacheData& cache() { return cache_; }
  std::int64_t n_written() const {
    return std::count_if(sequences_.begin(), sequences_.end(), [](int s) { return s >= 0; });
  }

 private:
  void for_each_row(const std::function<void(int, int, std::int64_t)>& visit) const {
    for (int token = 0; token < case_.n_tokens; ++token) {
      for (int head = 0; sequences_[token] >= 0 && head < case_.cache.n_kv_heads; ++head) {
        visit(
            token,
            head,
            (static_cast<std::int64_t>(token) * case_.cache.n_kv_heads + head) * case_.cache.k_dim);
      }
    }
  }

  Case case_;
  KvCacheData cache_, expected_;
  std::vector<std::byte> k_, v_;
  std::vector<std::int32_t> sequences_, slots_, positions_;
  std::vector<std::uint64_t> turns_;
};

KvCacheSpec spec(KvFormat format, int dim, bool paged) {
  KvCacheSpec out;
  out.format = format;
  out.n_kv_heads = 3;
  out.k_dim = out.v_dim = dim;
  out.lengths = {9, 17};
  out.page_tokens = paged ? 4 : 0;
  out.token_major = paged;
  return out;
}

const std::vector<Element> kElements = {Element::f32, Element::f16, Element::bf16};

void expect_exact(Where where) {
  for (const KvFormat format : kAllKvFormats) {
    for (const int dim : {32, 64, 96, 128}) {
      const bool paged = dim != 64;
      const Element element = kElements[static_cast<std::size_t>(dim / 32) % 3];
      Problem problem({.cache = spec(format, dim, paged), .n_tokens = 13, .element = element});
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
        Problem problem({.cache = spec(format, 128, round % 2 == 0),
                         .n_tokens = 7,
                         .rotary_dim = rotary_dim,
                         .style = style,
                         .base = round % 3 == 0 ? 1e6 : 1e4,
                         .element = kElements[static_cast<std::size_t>(round) % 3],
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
      for (const Where where : {Where::cpu, Where::device}) {
        if (where == Where::device && !device_missing().empty()) {
          continue;
        }
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
  const Case rotated{.cache = spec(KvFormat::q8_0, 64, true), .rotary_dim = 32};
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
    Case of = rotated;
    of.cache.format = KvFormat::f16;
    of.first_position = 5000;
    Problem problem(of);
    problem.write(Where::device, mutate);
    EXPECT_FALSE(problem.compare_keys().holds());
  }
  Problem plain({.cache = spec(KvFormat::q4_0, 64, false)});
  plain.write(Where::device, [](CacheWriteParams& p) { std::swap(p.k, p.v); });
  EXPECT_FALSE(plain.stored_exactly());
}

TEST(CacheWriteSmall, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    Problem plain({.cache = spec(KvFormat::int8_token, 64, true), .n_tokens = 4});
    plain.write(Where::device);
    EXPECT_TRUE(plain.stored_exactly());
    Problem rotated({.cache = spec(KvFormat::f16, 64, true),
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
    Problem problem({.cache = spec(KvFormat::f16, 64, true),
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
    Case of{.cache = spec(format, 128, true), .n_tokens = 8, .rotary_dim = 64};
    of.element = Element::bf16;
    Problem problem(of);
    static_cast<void>(simt::take_traffic());
    problem.write(Where::device);
    const auto traffic = simt::take_traffic();
    if (!traffic) {
      return;
    }
    const CacheWriteShape shape{
        .n_tokens = problem.n_written(),
        .n_kv_heads = 3,
        .head_dim = 128,
        .rotary_dim = 64,
        .stored_row_bytes = row_data_bytes(format, 128) + row_scale_bytes(format, 128)};
    const OpCost cost = cache_write_cost(shape);
    EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value()) << name(format);
    EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value()) << name(format);
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
      KvCacheSpec of = spec(format, dim, dim != 96);
      of.lengths = dim == 64 ? std::vector<int>{0, 1, 5, 4, 3, 8} : std::vector<int>{0, 4, 7};
      of.lengths_per_head = dim == 64;
      EXPECT_TRUE(dequantises_exactly(of, Where::cpu)) << name(format) << " " << dim;
      if (device_missing().empty()) {
        EXPECT_TRUE(dequantises_exactly(of, Where::device)) << name(format) << " " << dim;
      }
    }
  }
}

TEST(Dequantise, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const KvFormat format : kAllKvFormats) {
    const KvCacheSpec of = spec(format, 64, true);
    static_cast<void>(simt::take_traffic());
    EXPECT_TRUE(dequantises_exactly(of, Where::device));
    const auto traffic = simt::take_traffic();
    if (!traffic) {
      return;
    }
    const OpCost cost = dequantise_cost(
        {.n_tokens = 9 + 17,
         .n_kv_heads = 3,
         .head_dim = 64,
         .stored_row_bytes = row_data_bytes(format, 64) + row_scale_bytes(format, 64)});
    EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value()) << name(format);
    EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value()) << name(format);
  }
}

}  // namespace
}  // namespace kvfathom::kernels
