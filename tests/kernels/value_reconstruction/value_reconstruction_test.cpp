#include "kernels/value_reconstruction/value_reconstruction.h"

#include <cmath>
#include <string>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "kernels/simt/emulator_control.h"
#include "model/ops/value_reconstruction.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

struct Shape {
  KvFormat format = KvFormat::bf16;
  int n_heads = 2, n_kv_heads = 2, head_dim = 32;
  std::vector<int> lengths = {20};
  bool rotated = true;
  int page_tokens = 0;
  int n_splits = 1;
};

/// A cache of keys, a projector and queries; the outputs start as NaN.
struct Case {
  explicit Case(const Shape& s)
      : shape(s),
        cache(KvCacheSpec{.format = s.format,
                          .n_kv_heads = s.n_kv_heads,
                          .k_dim = s.head_dim,
                          .v_dim = 0,
                          .lengths = s.lengths,
                          .page_tokens = s.page_tokens,
                          .seed = 11}) {
    RandomData random(5);
    const int width = s.n_kv_heads * s.head_dim;
    for (int i = 0; i < width * width; ++i) {
      projector.push_back(element(random.normal(1.0F / std::sqrt(static_cast<float>(width)))));
    }
    for (int i = 0; i < cache.n_sequences() * s.n_heads * s.head_dim; ++i) {
      q.push_back(element(random.normal()));
    }
    if (s.rotated) {
      cos_sin = rotation_cos_sin(s.head_dim, 100.0, cache.longest() + 1);
    }
  }
  [[nodiscard]] std::uint16_t element(float value) const {
    return shape.format == KvFormat::bf16 ? to_bf16(value).bits : to_f16(value).bits;
  }
  [[nodiscard]] float number(std::uint16_t bits) const {
    return shape.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
  }
  static std::vector<std::uint16_t> with_spare(std::vector<std::uint16_t> values, int n) {
    values.resize(values.size() + static_cast<std::size_t>(n), 0x3c00);
    return values;
  }
  [[nodiscard]] int width() const { return shape.n_kv_heads * shape.head_dim; }
  [[nodiscard]] int capacity() const { return cache.longest() + 1; }
  [[nodiscard]] double roundoff() const {
    return shape.format == KvFormat::bf16 ? kUnitRoundoffBf16 : kUnitRoundoffF16;
  }
  [[nodiscard]] ValueReconstructionParams shapes() const {
    ValueReconstructionParams p;
    p.n_heads = shape.n_heads;
    p.head_dim = shape.head_dim;
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
    p.token_capacity = capacity();
    return p;
  }
  [[nodiscard]] ValueReconstructionParams host() {
    ValueReconstructionParams p = shapes();
    p.cache = cache.host();
    p.cos_sin = shape.rotated ? cos_sin.data() : nullptr;
    p.projector = projector.data();
    p.q = q.data();
    p.out = out.data();
    p.values = values.data();
    return p;
  }
  void poison() {
    out.assign(q.size(), NAN);
    values.assign(static_cast<std::size_t>(cache.n_sequences()) * capacity() * width(), 0x7fff);
  }
  void run_cpu(int n_threads) {
    poison();
    value_decode_cpu(host(), n_threads);
    value_rows_cpu(host(), n_threads);
  }
  /// `mutate` may falsify the arguments; the reference never sees that.
  template <typename Mutate>
  void run_device(const Mutate& mutate, bool rows = true, bool decode = true) {
    poison();
    // A spare row each, so that a test may shift where they begin.
    const DeviceArray<std::uint16_t> d_projector(with_spare(projector, width())),
        d_q(with_spare(q, shape.head_dim)), d_values(values);
    const DeviceArray<float> d_cos_sin(cos_sin), d_out(out);
    ValueReconstructionParams p = shapes();
    p.cache = cache.device();
    p.cos_sin = shape.rotated ? d_cos_sin.data() : nullptr;
    p.projector = d_projector.data();
    p.q = d_q.data();
    p.out = d_out.data();
    p.values = d_values.data();
    const int longest = cache.longest();
    const DeviceArray<std::byte> scratch(
        static_cast<std::size_t>(value_decode_scratch_bytes(p, longest, shape.n_splits)));
    mutate(p);
    if (decode) {
      value_decode_launch(p, longest, shape.n_splits, scratch.data(), nullptr);
    }
    if (rows) {
      value_rows_launch(p, longest, nullptr);
    }
    synchronize();
    out = d_out.to_host();
    values = d_values.to_host();
  }
  void run_device() {
    run_device([](ValueReconstructionParams&) {});
  }

  /// `converts`: the weights and the keys that were turned back are rounded to 16 bits.
  [[nodiscard]] testing::AssertionResult decode_is_right(bool converts) {
    std::vector<double> want(out.size());
    std::vector<double> weighted(out.size());
    std::vector<double> score(out.size() / shape.head_dim);
    value_decode_reference(host(), {want.data(), weighted.data(), score.data()});
    Roundings u;
    u.probabilities = converts ? roundoff() * (shape.rotated ? 2.0 : 1.0) : 0.0;
    std::vector<double> bounds(out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      const int sequence = static_cast<int>(i) / (shape.n_heads * shape.head_dim);
      const AttentionMagnitudes m{weighted[i], score[i / shape.head_dim]};
      bounds[i] = attention_bound(want[i], m, cache.length(sequence, 0), width(), u);
    }
    return close_to<float>(out, want, bounds);
  }
  [[nodiscard]] testing::AssertionResult rows_are_right(bool converts) {
    std::vector<double> want(values.size(), NAN);
    std::vector<double> magnitude(values.size(), 0.0);
    value_rows_reference(host(), {want.data(), magnitude.data()});
    Roundings u;
    u.output = roundoff();
    u.operands = converts && shape.rotated ? roundoff() : 0.0;
    std::vector<float> got(values.size());
    std::vector<double> bounds(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      got[i] = number(values[i]);  // beyond a length: still the NaN it was
      // What is rounded to 16 bits is the float sum, which may be off by the rest of the bound.
      bounds[i] = dot_bound(want[i], magnitude[i], width(), u) * (1.0 + u.output);
    }
    return close_to<float>(got, want, bounds);
  }

  Shape shape;
  KvCacheData cache;
  std::vector<std::uint16_t> projector, q, values;
  std::vector<float> cos_sin, out;
};

std::string text(const Shape& s) {
  return std::string(name(s.format)) + " H" + std::to_string(s.n_heads) + "/" +
         std::to_string(s.n_kv_heads) + " D" + std::to_string(s.head_dim) + " L" +
         std::to_string(s.lengths[0]) + (s.rotated ? " rotated" : "");
}

const Shape kShapes[] = {
    {.n_heads = 1, .n_kv_heads = 1, .head_dim = 16, .lengths = {0, 1, 7}, .rotated = false},
    {.n_heads = 2, .n_kv_heads = 2, .head_dim = 64, .lengths = {63, 64, 65}},
    {.format = KvFormat::f16, .n_heads = 6, .n_kv_heads = 2, .head_dim = 96, .lengths = {40, 9}},
    {.n_heads = 20, .n_kv_heads = 4, .lengths = {130, 31, 0}, .page_tokens = 16, .n_splits = 3},
    {.format = KvFormat::f16, .n_heads = 34, .n_kv_heads = 1, .head_dim = 80, .lengths = {33}},
    {.n_heads = 66, .n_kv_heads = 2, .head_dim = 16, .lengths = {72}, .n_splits = 2},
    {.n_heads = 2, .n_kv_heads = 2, .head_dim = 128, .lengths = {50}, .page_tokens = 32},
};

TEST(ValueReconstructionReference, OneTokenGivesItsValue) {
  Case c({.lengths = {1}});
  c.poison();
  std::vector<double> out(c.q.size()), weighted(c.q.size()), score(2);
  value_decode_reference(c.host(), {out.data(), weighted.data(), score.data()});
  std::vector<double> rows(c.values.size()), magnitude(c.values.size());
  value_rows_reference(c.host(), {rows.data(), magnitude.data()});
  for (std::size_t i = 0; i < out.size(); ++i) {
    EXPECT_NEAR(out[i], rows[i], 1e-12);
  }
}

TEST(ValueReconstructionReference, RotatedAndPlainKeysGiveTheSameValues) {
  // Keys turned by the table, in f16 with few bits, so that turning by quarter turns is exact.
  Case plain(
      {.format = KvFormat::f16, .n_heads = 1, .n_kv_heads = 1, .lengths = {4}, .rotated = false});
  Case turned({.format = KvFormat::f16, .n_heads = 1, .n_kv_heads = 1, .lengths = {4}});
  for (int token = 0; token < 4; ++token) {
    std::vector<float> row(32);
    const auto key = plain.cache.key(0, 0, token);
    const int quarter = token % 4;
    constexpr float kCosine[] = {1, 0, -1, 0};
    constexpr float kSine[] = {0, 1, 0, -1};
    for (int i = 0; i < 16; ++i) {
      const auto low = static_cast<float>(key[i]);
      const auto high = static_cast<float>(key[i + 16]);
      row[i] = low * kCosine[quarter] - high * kSine[quarter];
      row[i + 16] = low * kSine[quarter] + high * kCosine[quarter];
      turned.cos_sin[(token * 16 + i) * 2] = kCosine[quarter];
      turned.cos_sin[(token * 16 + i) * 2 + 1] = kSine[quarter];
    }
    turned.cache.set_key(0, 0, token, row);
  }
  plain.poison();
  turned.poison();
  std::vector<double> a(plain.values.size()), b(plain.values.size()), m(plain.values.size());
  value_rows_reference(plain.host(), {a.data(), m.data()});
  value_rows_reference(turned.host(), {b.data(), m.data()});
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], 1e-12);
  }
}

TEST(ValueReconstructionCpu, MatchesTheReference) {
  for (const Shape& shape : kShapes) {
    SCOPED_TRACE(text(shape));
    Case c(shape);
    for (const int threads : {1, 2}) {
      c.run_cpu(threads);
      EXPECT_TRUE(c.decode_is_right(false));
      EXPECT_TRUE(c.rows_are_right(false));
    }
  }
}

TEST(ValueReconstruction, Refusals) {
  Case c({});
  c.poison();
  const auto refuses = [&](auto mutate) {
    ValueReconstructionParams p = c.host();
    mutate(p);
    EXPECT_THROW(value_decode_cpu(p), UnsupportedShape);
  };
  refuses([](ValueReconstructionParams& p) { p.cache.format = KvFormat::q8_0; });
  refuses([](ValueReconstructionParams& p) { p.head_dim = 24; });
  refuses([](ValueReconstructionParams& p) { p.n_heads = 3; });
  refuses([](ValueReconstructionParams& p) { p.cache.lengths_per_head = true; });
}

TEST(ValueReconstructionDevice, MatchesTheReference) {
  SKIP_WITHOUT_DEVICE();
  for (const Shape& shape : kShapes) {
    SCOPED_TRACE(text(shape));
    Case c(shape);
    c.run_device();
    EXPECT_TRUE(c.decode_is_right(true));
    EXPECT_TRUE(c.rows_are_right(true));
  }
}

TEST(ValueReconstructionDevice, CudaCoresBelowSm80) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "a device's capability is what it is";
  }
  DeviceInfo turing = device();
  turing.compute_capability = 75;
  turing.shared_bytes_per_block = 64 * 1024;
  simt::set_emulated_device(turing);
  for (const KvFormat format : {KvFormat::bf16, KvFormat::f16}) {
    Case c({.format = format, .n_heads = 6, .n_kv_heads = 2, .lengths = {37}});
    c.run_device();
    EXPECT_TRUE(c.decode_is_right(true));
    EXPECT_TRUE(c.rows_are_right(true));
  }
  simt::set_emulated_device({});
}

TEST(ValueReconstructionDevice, DominantTokensAtTheEdges) {
  SKIP_WITHOUT_DEVICE();
  for (const int token : {0, 31, 32, 63, 64, 99}) {
    Case c({.n_heads = 2, .n_kv_heads = 2, .lengths = {100}, .n_splits = 2});
    std::vector<float> query(32);
    for (int d = 0; d < 32; ++d) {
      query[d] = c.number(c.q[d]);
    }
    c.cache.plant_dominant(0, 0, token, query, 300.0F);
    c.run_device();
    EXPECT_TRUE(c.decode_is_right(true)) << token;
  }
}

TEST(ValueReconstructionDevice, WrongArgumentsAreNoticed) {
  SKIP_WITHOUT_DEVICE();
  Case c({.n_heads = 4, .n_kv_heads = 2, .lengths = {50}});
  std::vector<float> query(32);
  for (int d = 0; d < 32; ++d) {
    query[d] = c.number(c.q[d]);
  }
  c.cache.plant_dominant(0, 0, 49, query, 60.0F);
  c.run_device();
  ASSERT_TRUE(c.decode_is_right(true));
  ASSERT_TRUE(c.rows_are_right(true));
  const DeviceArray<std::int32_t> shorter(std::vector<std::int32_t>{49});
  const auto notices = [&](bool in_rows, auto mutate) {
    c.run_device(mutate);
    EXPECT_FALSE(c.decode_is_right(true));
    if (in_rows) {
      EXPECT_FALSE(c.rows_are_right(true));
    }
  };
  notices(true, [&](ValueReconstructionParams& p) { p.cache.lengths = shorter.data(); });
  notices(true, [](ValueReconstructionParams& p) { p.cos_sin = nullptr; });
  notices(true, [](ValueReconstructionParams& p) { p.cos_sin += p.head_dim; });
  notices(true, [](ValueReconstructionParams& p) { p.projector += kv_width(p); });
  notices(false, [](ValueReconstructionParams& p) { p.softmax_scale *= 1.5F; });
  notices(false, [](ValueReconstructionParams& p) { p.q += p.head_dim; });
}

/// Random keys of alike scores: here a wrong scale shows, which a dominant token hides. In f16,
/// whose own roundings are small.
TEST(ValueReconstructionDevice, OnePerCentOfTheScaleIsNoticed) {
  SKIP_WITHOUT_DEVICE();
  Case c(
      {.format = KvFormat::f16, .n_heads = 1, .n_kv_heads = 1, .lengths = {12}, .rotated = false});
  c.run_device();
  ASSERT_TRUE(c.decode_is_right(true));
  c.run_device([](ValueReconstructionParams& p) { p.softmax_scale *= 1.01F; });
  EXPECT_FALSE(c.decode_is_right(true));
}

TEST(ValueReconstructionDevice, MovesTheBytesOfTheFormula) {
  SKIP_WITHOUT_DEVICE();
  for (const bool rotated : {false, true}) {
    // 34 query heads a KV head are three readings for the scores, 68 are two for the sums.
    Case c({.n_heads = 68,
            .n_kv_heads = 2,
            .head_dim = 80,
            .lengths = {70, 70},
            .rotated = rotated,
            .n_splits = 2});
    const ValueReconstructionShape shape{2, 70, 68, 2, 80, rotated, 2};
    EXPECT_EQ(value_decode_passes(shape), 5);
    constexpr std::int64_t kTokenTiles = 2;
    constexpr std::int64_t kColumnTiles = 2;
    const auto nothing = [](ValueReconstructionParams&) {};

    static_cast<void>(simt::take_traffic());
    c.run_device(nothing, false, true);
    const auto decode = simt::take_traffic();
    if (!decode) {
      return;
    }
    // What the tiles of one launch ask for again, and a cache answers: queries, and weights.
    const std::int64_t again =
        (kTokenTiles - 1) * 2 * 68 * 80 * 2 + (kColumnTiles - 1) * 2 * 68 * 72 * 2;
    const OpCost decode_cost = value_decode_cost(shape);
    EXPECT_EQ(static_cast<double>(decode->read_bytes() - again), decode_cost.read.value());
    EXPECT_EQ(static_cast<double>(decode->stored_bytes), decode_cost.written.value());

    c.run_device(nothing, true, false);
    const auto rows = simt::take_traffic();
    const std::int64_t keys_again = (kColumnTiles - 1) * 2 * 70 * 160 * 2;
    const std::int64_t projector_again = (2 * kTokenTiles - 1) * 160 * 160 * 2;
    const OpCost rows_cost = value_rows_cost(shape);
    EXPECT_EQ(static_cast<double>(rows->read_bytes() - keys_again - projector_again),
              rows_cost.read.value());
    EXPECT_EQ(static_cast<double>(rows->stored_bytes), rows_cost.written.value());
  }
}

Shape smallest() {
  return {.n_heads = 2, .n_kv_heads = 1, .head_dim = 64, .lengths = {70}, .n_splits = 1};
}

TEST(ValueReconstructionSmall, EverySchedule) {
  SKIP_WITHOUT_DEVICE();
  Case c(smallest());
  under_every_schedule([&] {
    c.run_device();
    EXPECT_TRUE(c.decode_is_right(true));
    EXPECT_TRUE(c.rows_are_right(true));
  });
}

TEST(ValueReconstructionSmall, EverySynchronisationMatters) {
  SKIP_WITHOUT_DEVICE();
  for (const bool rotated : {false, true}) {
    Shape shape = smallest();
    shape.rotated = rotated;
    Case c(shape);
    c.run_device();
    const auto out = c.out;
    const auto values = c.values;
    expect_every_sync_matters([&] {
      c.run_device();
      return c.out == out && c.values == values;  // no sum depends on the order of threads
    });
  }
}

}  // namespace
}  // namespace kvfathom::kernels
