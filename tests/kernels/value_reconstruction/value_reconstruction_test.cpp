#include "kernels/value_reconstruction/value_reconstruction.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/simt/emulator_control.h"
#include "model/ops/value_reconstruction.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/old_device.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/vector_widths.h"
#include "tests/kernels/value_reconstruction/value_case.h"

namespace kvfathom::kernels {
namespace {

std::string text(const ValueShape& s) {
  return std::string(name(s.format)) + " H" + std::to_string(s.n_heads) + "/" +
         std::to_string(s.n_kv_heads) + " D" + std::to_string(s.head_dim) + " L" +
         std::to_string(s.lengths[0]) + (s.rotated ? " rotated" : "");
}

const ValueShape kShapes[] = {
    {.n_heads = 1, .n_kv_heads = 1, .head_dim = 16, .lengths = {0, 1, 7}, .rotated = false},
    {.n_heads = 2, .n_kv_heads = 2, .head_dim = 64, .lengths = {63, 64, 65}},
    {.format = KvFormat::f16, .n_heads = 6, .n_kv_heads = 2, .head_dim = 96, .lengths = {40, 9}},
    {.n_heads = 20, .n_kv_heads = 4, .lengths = {130, 31, 0}, .page_tokens = 16, .n_splits = 3},
    {.format = KvFormat::f16, .n_heads = 34, .n_kv_heads = 1, .head_dim = 80, .lengths = {33}},
    {.n_heads = 66, .n_kv_heads = 2, .head_dim = 16, .lengths = {72}, .n_splits = 2},
    {.n_heads = 2, .n_kv_heads = 2, .head_dim = 128, .lengths = {50}, .page_tokens = 32},
};

TEST(ValueReconstructionReference, OneTokenGivesItsValue) {
  ValueCase c({.lengths = {1}});
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
  ValueCase plain(
      {.format = KvFormat::f16, .n_heads = 1, .n_kv_heads = 1, .lengths = {4}, .rotated = false});
  ValueCase turned({.format = KvFormat::f16, .n_heads = 1, .n_kv_heads = 1, .lengths = {4}});
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
  for (const ValueShape& shape : kShapes) {
    SCOPED_TRACE(text(shape));
    ValueCase c(shape);
    for (const int threads : {1, 2}) {
      c.run_cpu(threads);
      EXPECT_TRUE(c.decode_is_right(false));
      EXPECT_TRUE(c.rows_are_right(false));
    }
  }
}

TEST(ValueReconstructionCpu, EveryVectorWidth) {
  at_every_vector_width([] {
    for (const ValueShape& shape : kShapes) {
      SCOPED_TRACE(text(shape));
      ValueCase c(shape);
      c.run_cpu(3);
      EXPECT_TRUE(c.decode_is_right(false));
      EXPECT_TRUE(c.rows_are_right(false));
    }
  });
}

/// More tokens than a tile of the rows, and fewer tiles than threads.
TEST(ValueReconstructionCpu, ManyTokensAndMoreThreadsThanTiles) {
  ValueCase c({.head_dim = 16, .lengths = {1100, 90}});
  for (const int threads : {1, 5, 40}) {
    c.run_cpu(threads);
    EXPECT_TRUE(c.decode_is_right(false)) << threads;
    EXPECT_TRUE(c.rows_are_right(false)) << threads;
  }
}

TEST(ValueReconstructionCpu, DominantTokensAtTheEdges) {
  for (const int token : {0, 63, 64, 127, 128, 129}) {
    ValueCase c({.n_heads = 2, .n_kv_heads = 2, .lengths = {130}});
    std::vector<float> query(32);
    for (int d = 0; d < 32; ++d) {
      query[d] = c.number(c.q[d]);
    }
    c.cache.plant_dominant(0, 0, token, query, 300.0F);
    c.run_cpu(2);
    EXPECT_TRUE(c.decode_is_right(false)) << token;
  }
}

TEST(ValueReconstruction, Refusals) {
  ValueCase c({});
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
  for (const ValueShape& shape : kShapes) {
    SCOPED_TRACE(text(shape));
    ValueCase c(shape);
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
  const PretendedSm75 turing;
  for (const KvFormat format : {KvFormat::bf16, KvFormat::f16}) {
    ValueCase c({.format = format, .n_heads = 6, .n_kv_heads = 2, .lengths = {37}});
    c.run_device();
    EXPECT_TRUE(c.decode_is_right(true));
    EXPECT_TRUE(c.rows_are_right(true));
  }
}

TEST(ValueReconstructionDevice, DominantTokensAtTheEdges) {
  SKIP_WITHOUT_DEVICE();
  for (const int token : {0, 31, 32, 63, 64, 99}) {
    ValueCase c({.n_heads = 2, .n_kv_heads = 2, .lengths = {100}, .n_splits = 2});
    c.plant(token, 300.0F);
    c.run_device();
    EXPECT_TRUE(c.decode_is_right(true)) << token;
  }
}

TEST(ValueReconstructionDevice, WrongArgumentsAreNoticed) {
  SKIP_WITHOUT_DEVICE();
  ValueCase c({.n_heads = 4, .n_kv_heads = 2, .lengths = {50}});
  c.plant(49, 60.0F);
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
  ValueCase c(
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
    ValueCase c({.n_heads = 68,
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

ValueShape smallest() {
  return {.n_heads = 2, .n_kv_heads = 1, .head_dim = 64, .lengths = {70}, .n_splits = 1};
}

TEST(ValueReconstructionSmall, EverySchedule) {
  SKIP_WITHOUT_DEVICE();
  ValueCase c(smallest());
  under_every_schedule([&] {
    c.run_device();
    EXPECT_TRUE(c.decode_is_right(true));
    EXPECT_TRUE(c.rows_are_right(true));
  });
}

TEST(ValueReconstructionSmall, EverySynchronisationMatters) {
  SKIP_WITHOUT_DEVICE();
  for (const bool rotated : {false, true}) {
    ValueShape shape = smallest();
    shape.rotated = rotated;
    ValueCase c(shape);
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
