#include "kernels/head_reconstruction/head_reconstruction.h"

#include <string>

#include "kernels/common/error.h"
#include "kernels/simt/emulator_control.h"
#include "model/ops/head_reconstruction.h"
#include "tests/kernels/head_reconstruction/head_case.h"
#include "tests/kernels/support/old_device.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/vector_widths.h"

namespace kvfathom::kernels {
namespace {

const HeadShape kShapes[] = {
    {.head_dim = 16, .lengths = {0, 1, 4, 5, 6, 7}},
    {.lengths = {63, 64, 65}, .predict_values = false},
    {.format = KvFormat::f16, .head_dim = 80, .lengths = {70, 9}, .predict_keys = false},
    {.query_heads_per_kv_head = 1, .head_dim = 64, .lengths = {33}, .n_first = 0, .n_last = 0},
    {.query_heads_per_kv_head = 9,
     .lengths = {130, 31, 0},
     .n_first = 30,
     .n_last = 5,
     .page_tokens = 16,
     .n_splits = 3},
    {.format = KvFormat::f16, .query_heads_per_kv_head = 4, .head_dim = 128, .lengths = {40}},
    {.lengths = {50}, .predict_keys = false, .predict_values = false},
};

std::string text(const HeadShape& s) {
  return std::string(name(s.format)) + " G" + std::to_string(s.query_heads_per_kv_head) + " D" +
         std::to_string(s.head_dim) + " L" + std::to_string(s.lengths[0]) +
         (s.predict_keys ? " K" : "") + (s.predict_values ? " V" : "");
}

TEST(HeadReconstructionReference, AnIdentityMapGivesTheReferenceItself) {
  HeadCase c({.lengths = {12}, .n_first = 0, .n_last = 0});
  // Heads 3 and 4 of the keys become copies of stored head 2, head 1 of the values of head 3.
  std::fill(c.k.maps.begin(), c.k.maps.end(), std::uint16_t{0});
  std::fill(c.k.bias.begin(), c.k.bias.end(), 0.0F);
  const int stride = c.k.tables.max_references * 32;
  for (int d = 0; d < 32; ++d) {
    c.k.maps[d * stride + 32 + d] = c.element(1.0F);
  }
  c.poison();
  std::vector<double> rows(c.rows.size()), magnitude(c.rows.size());
  head_rows_reference(c.host(), HeadSide::keys, {rows.data(), magnitude.data()});
  for (int token = 0; token < 12; ++token) {
    const std::vector<double> stored = c.cache.key(0, 2, token);
    for (int d = 0; d < 32; ++d) {
      EXPECT_EQ(rows[token * 2 * 32 + d], stored[d]);
    }
  }
}

TEST(HeadReconstructionReference, OneTokenGivesItsValueAndItsOffset) {
  HeadCase c({.lengths = {1}, .n_first = 0, .n_last = 0});
  std::vector<double> out(c.q.size()), weighted(c.q.size()), score(10);
  c.poison();
  head_decode_reference(c.host(), {out.data(), weighted.data(), score.data()});
  c.poison(HeadSide::values);
  std::vector<double> rows(c.rows.size()), magnitude(c.rows.size());
  head_rows_reference(c.host(), HeadSide::values, {rows.data(), magnitude.data()});
  for (int d = 0; d < 32; ++d) {
    EXPECT_NEAR(out[2 * 32 + d], rows[d], 1e-14);       // KV head 1, its first query head
    EXPECT_NEAR(out[6 * 32 + d], rows[32 + d], 1e-14);  // KV head 3
    EXPECT_EQ(out[d], c.cache.value(0, 0, 0)[d]);       // KV head 0 is stored
  }
}

TEST(HeadReconstruction, HeadsWithEqualReferencesFormAGroup) {
  const SideSpec keys = key_side(true);
  const HeadTables t = group_heads(10, keys.stored, keys.predicted);
  EXPECT_EQ(t.n_maps, 2);
  EXPECT_EQ(t.max_references, 3);
  EXPECT_EQ(t.map_of_head, (std::vector<std::int32_t>{0, 0, 0, 1, 2}));
  EXPECT_EQ(t.bounds, (std::vector<std::int32_t>{0, 2, 0, 1, 2, 2, 1, 1, 4, 2, 2, 1, 6, 4, 3, 3}));
  EXPECT_EQ(t.rows, (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(t.slices, (std::vector<std::int32_t>{0, 1, 2, 0, 2, 3}));
}

TEST(HeadReconstruction, Refusals) {
  HeadCase c({});
  c.poison();
  const auto refuses = [&](auto mutate) {
    HeadReconstructionParams p = c.host();
    mutate(p);
    EXPECT_THROW(head_decode_cpu(p), UnsupportedShape);
  };
  refuses([](HeadReconstructionParams& p) { p.cache.format = KvFormat::q8_0; });
  refuses([](HeadReconstructionParams& p) { p.head_dim = 24; });
  refuses([](HeadReconstructionParams& p) { p.n_heads = 7; });
  refuses([](HeadReconstructionParams& p) { p.n_last = -1; });
}

TEST(HeadReconstructionCpu, MatchesTheReference) {
  for (const HeadShape& shape : kShapes) {
    SCOPED_TRACE(text(shape));
    HeadCase c(shape);
    for (const int threads : {1, 2}) {
      c.decode_on_cpu(threads);
      EXPECT_TRUE(c.decode_is_right(false));
      for (const HeadSide side : {HeadSide::keys, HeadSide::values}) {
        c.rows_on_cpu(side, threads);
        EXPECT_TRUE(c.rows_are_right(side));
      }
    }
  }
}

TEST(HeadReconstructionCpu, EveryVectorWidth) {
  at_every_vector_width([] {
    for (const HeadShape& shape : kShapes) {
      SCOPED_TRACE(text(shape));
      HeadCase c(shape);
      c.decode_on_cpu(3);
      EXPECT_TRUE(c.decode_is_right(false));
      for (const HeadSide side : {HeadSide::keys, HeadSide::values}) {
        c.rows_on_cpu(side, 3);
        EXPECT_TRUE(c.rows_are_right(side));
      }
    }
  });
}

/// More tokens than a tile of the rows, and fewer tiles than threads.
TEST(HeadReconstructionCpu, ManyTokensAndMoreThreadsThanTiles) {
  HeadCase c({.head_dim = 16, .lengths = {600, 90}});
  for (const int threads : {1, 5, 40}) {
    c.decode_on_cpu(threads);
    EXPECT_TRUE(c.decode_is_right(false)) << threads;
    c.rows_on_cpu(HeadSide::values, threads);
    EXPECT_TRUE(c.rows_are_right(HeadSide::values)) << threads;
  }
}

TEST(HeadReconstructionCpu, DominantTokensAtTheEdges) {
  for (const int token : {0, 2, 3, 63, 64, 127, 128, 129}) {
    HeadCase c({.lengths = {130}});
    std::vector<float> query(32);
    for (int d = 0; d < 32; ++d) {
      query[d] = c.number(c.q[d]);
    }
    c.cache.plant_dominant(0, 0, token, query, 60.0F);
    c.decode_on_cpu(2);
    EXPECT_TRUE(c.decode_is_right(false)) << token;
  }
}

void expect_device_right(const HeadShape& shape) {
  SCOPED_TRACE(text(shape));
  HeadCase c(shape);
  c.decode_on_device();
  EXPECT_TRUE(c.decode_is_right(true));
  for (const HeadSide side : {HeadSide::keys, HeadSide::values}) {
    c.rows_on_device(side);
    EXPECT_TRUE(c.rows_are_right(side));
  }
}

TEST(HeadReconstructionDevice, MatchesTheReference) {
  SKIP_WITHOUT_DEVICE();
  for (const HeadShape& shape : kShapes) {
    expect_device_right(shape);
  }
}

TEST(HeadReconstructionDevice, CudaCoresBelowSm80) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "a device's capability is what it is";
  }
  const PretendedSm75 turing;
  expect_device_right({.lengths = {37}});
  expect_device_right({.format = KvFormat::f16, .lengths = {37}});
}

TEST(HeadReconstructionDevice, DominantTokensAtTheEdges) {
  SKIP_WITHOUT_DEVICE();
  for (const int token : {0, 2, 3, 31, 63, 64, 67, 68, 69}) {
    HeadCase c({.lengths = {70}, .n_splits = 2});
    std::vector<float> query(32);
    for (int d = 0; d < 32; ++d) {
      query[d] = c.number(c.q[d]);
    }
    c.cache.plant_dominant(0, 0, token, query, 60.0F);
    c.decode_on_device();
    EXPECT_TRUE(c.decode_is_right(true)) << token;
  }
}

TEST(HeadReconstructionDevice, WrongArgumentsAreNoticed) {
  SKIP_WITHOUT_DEVICE();
  HeadCase c({.format = KvFormat::f16, .lengths = {20}});
  c.decode_on_device();
  ASSERT_TRUE(c.decode_is_right(true));
  const DeviceArray<std::int32_t> shorter(std::vector<std::int32_t>{19});
  const DeviceArray<float> no_bias(std::vector<float>(2 * 32, 0.0F));
  const auto notices = [&](auto mutate) {
    c.decode_on_device(mutate);
    EXPECT_FALSE(c.decode_is_right(true));
  };
  notices([&](HeadReconstructionParams& p) { p.cache.lengths = shorter.data(); });
  notices([](HeadReconstructionParams& p) { p.softmax_scale *= 1.05F; });
  notices([&](HeadReconstructionParams& p) { p.k.bias = no_bias.data(); });
  notices([&](HeadReconstructionParams& p) { p.v.bias = no_bias.data(); });
  notices([](HeadReconstructionParams& p) { --p.n_first, ++p.n_last; });
  notices([](HeadReconstructionParams& p) { std::swap(p.k.maps, p.v.maps); });
  notices([](HeadReconstructionParams& p) { std::swap(p.cache.k, p.cache.v); });
}

std::vector<HeadGroupShape> groups_of(const HeadTables& tables, int rows_per_head) {
  std::vector<HeadGroupShape> groups;
  for (std::size_t g = 0; g < tables.bounds.size(); g += 4) {
    const int head = tables.rows[tables.bounds[g]] / rows_per_head;
    groups.push_back({tables.bounds[g + 1], tables.bounds[g + 3], tables.map_of_head[head] != 0});
  }
  return groups;
}

TEST(HeadReconstructionDevice, MovesTheBytesOfTheFormula) {
  SKIP_WITHOUT_DEVICE();
  // The group of two predicted key heads has 18 rows: two readings of its references.
  HeadCase c({.query_heads_per_kv_head = 9, .head_dim = 80, .lengths = {70, 70}, .n_splits = 2});
  HeadReconstructionShape shape{2, 70, 45, 5, 80, 5, 2, {}, {}};
  shape.k = groups_of(c.k.tables, 9);
  shape.v = groups_of(c.v.tables, 9);
  static_cast<void>(simt::take_traffic());
  c.decode_on_device();
  const auto decode = simt::take_traffic();
  if (!decode) {
    return;
  }
  // What the tiles of one launch ask for again, and a cache answers: mapped queries for the second
  // tile of tokens, weights for further tiles of columns.
  std::int64_t again = 0;
  for (const HeadGroupShape& group : shape.k) {
    again += 2 * group.n_rows * group.n_slices * 80 * 2;
  }
  for (const HeadGroupShape& group : shape.v) {
    again += 2 * group.n_rows * 72 * 2 * ((group.n_slices * 80 + 127) / 128 - 1);
  }
  const OpCost decode_cost = head_decode_cost(shape);
  EXPECT_EQ(static_cast<double>(decode->read_bytes() - again), decode_cost.read.value());
  EXPECT_EQ(static_cast<double>(decode->stored_bytes), decode_cost.written.value());

  c.rows_on_device(HeadSide::values);
  const auto rows = simt::take_traffic();
  constexpr std::int64_t kColumnTiles = 2;
  constexpr std::int64_t kTokenTiles = 2 * 2;
  constexpr std::int64_t kReferences = 2 + 3;
  const std::int64_t rows_again = (kColumnTiles - 1) * 2 * 70 * kReferences * 80 * 2 +
                                  (kTokenTiles - 1) * kReferences * 80 * 80 * 2;
  const OpCost rows_cost = head_rows_cost(shape, shape.v);
  EXPECT_EQ(static_cast<double>(rows->read_bytes() - rows_again), rows_cost.read.value());
  EXPECT_EQ(static_cast<double>(rows->stored_bytes), rows_cost.written.value());
}

TEST(HeadReconstructionSmall, EverySchedule) {
  SKIP_WITHOUT_DEVICE();
  HeadCase c({.query_heads_per_kv_head = 1, .lengths = {40}});
  under_every_schedule([&] {
    c.decode_on_device();
    EXPECT_TRUE(c.decode_is_right(true));
    c.rows_on_device(HeadSide::values);
    EXPECT_TRUE(c.rows_are_right(HeadSide::values));
  });
}

TEST(HeadReconstructionSmall, EverySynchronisationMatters) {
  SKIP_WITHOUT_DEVICE();
  HeadCase c({.query_heads_per_kv_head = 1, .lengths = {40}});
  c.decode_on_device();
  const auto out = c.out;
  c.rows_on_device(HeadSide::values);
  const auto rows = c.rows;
  expect_every_sync_matters([&] {
    c.decode_on_device();
    const bool same = c.out == out;  // no sum depends on the order of threads
    c.rows_on_device(HeadSide::values);
    return same && c.rows == rows;
  });
}

}  // namespace
}  // namespace kvfathom::kernels
