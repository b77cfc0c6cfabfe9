#include "kernels/residual_recompute/residual_recompute.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "kernels/simt/emulator_control.h"
#include "model/ops/residual_recompute.h"
#include "tests/kernels/residual_recompute/residual_case.h"
#include "tests/kernels/support/old_device.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

// ---- stored rows ----

TEST(StoredRows, ValuesAreWithinHalfAStep) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const GroupAxis axis : {GroupAxis::channels, GroupAxis::tokens}) {
      const StoredRows like{
          .format = RowFormat::uniform, .n_columns = 256, .bits = bits, .axis = axis};
      RandomData random(5);
      const std::vector<float> values = random.normals(130UL * 256);  // a group and two tokens
      const EncodedRows encoded = encode_rows(like, values);
      const StoredRows rows = encoded.view(like);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto token = static_cast<std::int64_t>(i / 256);
        const auto column = static_cast<int>(i % 256);
        const std::size_t group = axis == GroupAxis::channels
                                      ? i / 128
                                      : static_cast<std::size_t>(token / 128 * 256 + column);
        const double step = to_f32(encoded.steps[group]);
        // The rounded step and minimum move the ends by a roundoff of the range each.
        const double ends = 2.0 * kUnitRoundoffF16 * 10.0;
        ASSERT_LE(std::fabs(stored_value(rows, token, column) - values[i]), step / 2.0 + ends);
      }
    }
  }
}

TEST(StoredRows, BytesAreCodesAndAShareOfTheScales) {
  const StoredRows rows{.format = RowFormat::uniform, .n_columns = 4096, .bits = 3};
  EXPECT_EQ(stored_row_bytes(rows), 4096 * (3.0 / 8.0 + 4.0 / 128.0));
  const EncodedRows encoded = encode_rows(rows, std::vector<float>(4096, 1.0F));
  const std::size_t bytes =
      4 * encoded.words.size() + 2 * (encoded.steps.size() + encoded.minima.size());
  EXPECT_EQ(static_cast<double>(bytes), stored_row_bytes(rows));
}

TEST(StoredRows, RefusesWhatItCannotStore) {
  const std::vector<float> row(100, 0.0F);
  EXPECT_THROW(static_cast<void>(
                   encode_rows({.format = RowFormat::uniform, .n_columns = 100, .bits = 4}, row)),
               UnsupportedShape);
  EXPECT_THROW(static_cast<void>(
                   encode_rows({.format = RowFormat::uniform, .n_columns = 128, .bits = 5}, row)),
               UnsupportedShape);
}

// ---- the reference against closed forms ----

// Identity weights: V is the normalised row itself; a constant row has root mean square 1 after.
TEST(ResidualRecomputeReference, IdentityWeightsGiveTheNormalisedRow) {
  const int n = 32;
  std::vector<Bf16> x(n, to_bf16(3.0F));
  std::vector<Bf16> weights(2UL * n * n, to_bf16(0.0F));
  for (int i = 0; i < 2 * n; ++i) {
    weights[static_cast<std::size_t>(i) * n + i % n] = to_bf16(1.0F);
  }
  const std::vector<Bf16> ones(n, to_bf16(1.0F));
  ResidualRecomputeParams p;
  p.x = {.n_columns = n, .data = x.data()};
  p.norm_weight = ones.data();
  p.norm_epsilon = 0.0F;
  p.weights = weights.data();
  p.to.n_tokens = 1;
  p.to.head_dim = n;
  p.to.cache.n_kv_heads = 1;
  std::vector<double> k(n), v(n), k_magnitude(n), v_magnitude(n);
  residual_recompute_reference(p, {k.data(), v.data(), k_magnitude.data(), v_magnitude.data()});
  for (int i = 0; i < n; ++i) {
    EXPECT_DOUBLE_EQ(k[i], 1.0);
    EXPECT_DOUBLE_EQ(v[i], 1.0);
  }
  p.norm_weight = nullptr;  // now X is stored after its norm; a head's own norm makes 3 into 2
  const std::vector<Bf16> twos(n, to_bf16(2.0F));
  p.k_norm_weight = twos.data();
  p.k_norm_epsilon = 0.0F;
  residual_recompute_reference(p, {k.data(), v.data(), k_magnitude.data(), v_magnitude.data()});
  EXPECT_DOUBLE_EQ(k[0], 2.0);
  EXPECT_DOUBLE_EQ(v[0], 3.0);
}

// ---- kernels against the reference ----

std::vector<ResidualCase> cases() {
  std::vector<ResidualCase> all = {
      {.n_tokens = 1},
      {.n_tokens = 5, .k_norm = true, .rotary_dim = 32},
      {.n_tokens = 129, .n_columns = 96, .n_kv_heads = 3, .head_dim = 40, .rotary_dim = 16},
      {.n_tokens = 70, .n_columns = 160, .format = KvFormat::bf16, .chunk_tokens = 32},
      {.n_tokens = 33,
       .n_columns = 320,
       .n_kv_heads = 1,
       .head_dim = 128,
       .format = KvFormat::q8_0,
       .page_tokens = 16},
      {.n_tokens = 3, .deviation = 1.0e4F},
      {.n_tokens = 3, .deviation = 1.0e-4F},
  };
  for (const int bits : {2, 3, 4, 8}) {
    all.push_back(
        {.n_tokens = 9, .n_columns = 128, .rows = RowFormat::uniform, .bits = bits, .norm = false});
    all.push_back({.n_tokens = 140,
                   .n_columns = 64,
                   .rows = RowFormat::uniform,
                   .bits = bits,
                   .axis = GroupAxis::tokens,
                   .separate_v = true,
                   .norm = false,
                   .rotary_dim = 32,
                   .chunk_tokens = 64});
  }
  return all;
}

void expect_right(Where where) {
  for (const ResidualCase& of : cases()) {
    SCOPED_TRACE(testing::Message() << of.n_tokens << " tokens, " << of.n_columns << " columns, "
                                    << of.bits << " bits, " << name(of.format));
    ResidualProblem problem(of);
    problem.run(where);
    EXPECT_TRUE(within(problem.compare_with_reference(where)));
  }
}

TEST(ResidualRecompute, CpuMatchesTheReference) {
  expect_right(Where::cpu);
}
TEST(ResidualRecompute, DeviceMatchesTheReference) {
  SKIP_WITHOUT_DEVICE();
  expect_right(Where::device);
}

TEST(ResidualRecompute, RunsWithoutTensorCores) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "a real device is what it is";
  }
  const PretendedSm75 turing;
  ResidualProblem problem({.n_tokens = 9, .k_norm = true, .rotary_dim = 32});
  problem.run(Where::device);
  EXPECT_TRUE(within(problem.compare_with_reference(Where::device)));
}

TEST(ResidualRecompute, NoticesWrongArguments) {
  const std::vector<ResidualProblem::Mutate> wrong = {
      [](auto& p) { p.to.n_tokens -= 1; },
      [](auto& p) { p.norm_epsilon = 0.3F; },
      [](auto& p) { p.norm_weight = nullptr; },
      [](auto& p) { p.k_norm_weight = nullptr; },
      [](auto& p) { p.to.positions += 1, p.to.n_tokens -= 1; },
      [](auto& p) { p.to.rope.style = RopeStyle::pairs; },
      [](auto& p) { p.weights += p.x.n_columns, p.to.n_tokens -= 1; },
  };
  for (const Where where : places()) {
    for (std::size_t i = 0; i < wrong.size(); ++i) {
      ResidualProblem problem({.n_tokens = 5, .k_norm = true, .rotary_dim = 32});
      problem.run(where, wrong[i]);
      EXPECT_FALSE(problem.compare_with_reference(where).holds()) << i;
    }
  }
}

const ResidualCase kSmall{.n_tokens = 2, .n_columns = 32, .n_kv_heads = 1, .k_norm = true};

TEST(ResidualRecomputeSmall, NoScheduleChangesTheResult) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    ResidualProblem problem(kSmall);
    problem.run(Where::device);
    EXPECT_TRUE(within(problem.compare_with_reference(Where::device)));
  });
}

TEST(ResidualRecomputeSmall, EverySyncMatters) {
  SKIP_WITHOUT_DEVICE();
  // More depth than the ring of the product holds, so that a stage is filled again.
  expect_every_sync_matters([] {
    ResidualProblem problem(
        {.n_tokens = 2, .n_columns = 256, .n_kv_heads = 1, .k_norm = true, .rotary_dim = 32});
    problem.run(Where::device);
    return problem.compare_with_reference(Where::device).holds();
  });
}

/// What a grid of tiles asks for: every column of tiles reads the rows, every row of them the
/// weights.
std::int64_t requested_bytes(std::int64_t m, std::int64_t n, std::int64_t k) {
  const std::int64_t rows_of_tiles = (m + kResidualTileTokens - 1) / kResidualTileTokens;
  const std::int64_t columns_of_tiles = (n + kResidualTileColumns - 1) / kResidualTileColumns;
  return 2 * k * (m * columns_of_tiles + n * rows_of_tiles);
}

TEST(ResidualRecompute, MovesTheBytesOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const ResidualCase& of : cases()) {
    ResidualProblem problem(of);
    static_cast<void>(simt::take_traffic());
    problem.run(Where::device);
    const auto traffic = simt::take_traffic();
    if (!traffic) {
      GTEST_SKIP() << "nothing is counted here";
    }
    const int width = of.n_kv_heads * of.head_dim;
    const StoredRows rows{
        .format = of.rows, .n_columns = of.n_columns, .bits = of.bits, .axis = of.axis};
    const ResidualRecomputeShape shape{
        .n_tokens = of.n_tokens,
        .n_columns = of.n_columns,
        .stored_row_bytes = (of.separate_v ? 2.0 : 1.0) * stored_row_bytes(rows),
        .separate_v = of.separate_v,
        .n_kv_heads = of.n_kv_heads,
        .head_dim = of.head_dim,
        .rotary_dim = of.rotary_dim,
        .norm = of.norm,
        .k_norm = of.k_norm,
        .cache_row_bytes =
            row_data_bytes(of.format, of.head_dim) + row_scale_bytes(of.format, of.head_dim),
        .chunk_tokens = of.chunk_tokens,
    };
    const OpCost cost = residual_recompute_cost(shape);
    // A tile of the product reads its operands anew: from the second-level cache, says the model.
    std::int64_t repeats = 0;
    for (int first = 0; first < of.n_tokens; first += of.chunk_tokens) {
      const int count = std::min(of.chunk_tokens, of.n_tokens - first);
      const std::int64_t asked = 2 * requested_bytes(count, width, of.n_columns);
      const std::int64_t inputs = of.separate_v ? 2 : 1;
      repeats += asked - 2L * of.n_columns * (inputs * count + 2L * width);
    }
    const double read = static_cast<double>(traffic->read_bytes()) - static_cast<double>(repeats);
    // Tokens that share a step pay for whole groups of 128; the model charges their share.
    const bool whole_groups = of.rows == RowFormat::bf16 || of.axis == GroupAxis::channels;
    if (whole_groups) {
      EXPECT_EQ(read, cost.read.value());
    } else {
      EXPECT_GE(read, cost.read.value());
    }
    EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
  }
}

// The scheme's own figure: 4 d kvd FLOPs a token, 2.1 GFLOP over Llama-2-7B's 32 layers
// (schemes: residual as a decode-time scheme).
TEST(ResidualRecomputeCost, CountsTheProduct) {
  const OpCost cost = residual_recompute_cost({.n_tokens = 1,
                                               .n_columns = 4096,
                                               .stored_row_bytes = 8192,
                                               .n_kv_heads = 32,
                                               .head_dim = 128,
                                               .norm = false,
                                               .cache_row_bytes = 256});
  EXPECT_EQ(cost.flops.value() * 32.0, 2147483648.0);
}

}  // namespace
}  // namespace kvfathom::kernels
