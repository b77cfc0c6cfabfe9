#include "kernels/residual_recompute/residual_recompute.h"

#include <cmath>
#include <functional>
#include <memory>
#include <numbers>
#include <numeric>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "model/ops/cache_write.h"
#include "model/ops/residual_recompute.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

enum class Where { cpu, device };

struct Case {
  int n_tokens = 5;
  int n_columns = 64;
  int n_kv_heads = 2;
  int head_dim = 32;
  RowFormat rows = RowFormat::bf16;
  int bits = 0;
  GroupAxis axis = GroupAxis::channels;
  bool separate_v = false;
  bool norm = true;
  bool k_norm = false;
  int rotary_dim = 0;
  KvFormat format = KvFormat::f16;
  int page_tokens = 0;
  int chunk_tokens = 1024;
  float deviation = 1.0F;
};

/// Rows of X in host memory, and on the device once asked for.
class Rows {
 public:
  Rows(const Case& of, std::uint64_t seed) {
    RandomData random(seed);
    const std::size_t n = static_cast<std::size_t>(of.n_tokens) * of.n_columns;
    view_ =
        StoredRows{.format = of.rows, .n_columns = of.n_columns, .bits = of.bits, .axis = of.axis};
    if (of.rows == RowFormat::bf16) {
      bf16_ = random.bf16_normals(n, of.deviation);
      view_.data = bf16_.data();
    } else {
      encoded_ = encode_rows(view_, random.normals(n, of.deviation));
      view_ = encoded_.view(view_);
    }
  }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  const StoredRows& host() const { return view_; }
  StoredRows device() {
    device_bf16_ = DeviceArray<Bf16>(bf16_);
    device_words_ = DeviceArray<std::uint32_t>(encoded_.words);
    device_steps_ = DeviceArray<F16>(encoded_.steps);
    device_minima_ = DeviceArray<F16>(encoded_.minima);
    StoredRows rows = view_;
    rows.data = view_.format == RowFormat::bf16 ? static_cast<const void*>(device_bf16_.data())
                                                : device_words_.data();
    rows.steps = device_steps_.data();
    rows.minima = device_minima_.data();
    return rows;
  }

 private:
  StoredRows view_;
  std::vector<Bf16> bf16_;
  EncodedRows encoded_;
  DeviceArray<Bf16> device_bf16_;
  DeviceArray<std::uint32_t> device_words_;
  DeviceArray<F16> device_steps_, device_minima_;
};

/// X, weights, and an empty cache that takes token t at slot t.
class Problem {
 public:
  explicit Problem(const Case& of)
      : case_(of),
        cache_({.format = of.format,
                .n_kv_heads = of.n_kv_heads,
                .k_dim = of.head_dim,
                .v_dim = of.head_dim,
                .lengths = {of.n_tokens},
                .page_tokens = of.page_tokens}),
        x_(of, 11),
        x_v_(of, 12) {
    RandomData random(7);
    const int width = of.n_kv_heads * of.head_dim;
    const float deviation = 1.0F / std::sqrt(static_cast<float>(of.n_columns));
    weights_ = random.bf16_normals(2UL * width * of.n_columns, deviation);
    norm_weight_ = random.bf16_normals(of.n_columns);
    k_norm_weight_ = random.bf16_normals(of.head_dim);
    sequences_.assign(of.n_tokens, 0);
    slots_.resize(of.n_tokens);
    std::iota(slots_.begin(), slots_.end(), 0);
    for (int token = 0; token < of.n_tokens; ++token) {
      positions_.push_back(1000 + token);
    }
    turns_ = rope_turns_per_position(of.rotary_dim, 10000.0);
  }

  ResidualRecomputeParams host(const KvCacheView& cache) const {
    ResidualRecomputeParams p;
    p.x = x_.host();
    p.x_v = case_.separate_v ? x_v_.host() : StoredRows{};
    p.norm_weight = case_.norm ? norm_weight_.data() : nullptr;
    p.weights = weights_.data();
    p.k_norm_weight = case_.k_norm ? k_norm_weight_.data() : nullptr;
    p.chunk_tokens = case_.chunk_tokens;
    p.to = {.n_tokens = case_.n_tokens,
            .head_dim = case_.head_dim,
            .cache = cache,
            .rope = {case_.rotary_dim, RopeStyle::halves, turns_.data()},
            .sequences = sequences_.data(),
            .slots = slots_.data(),
            .positions = positions_.data()};
    return p;
  }

  using Mutate = std::function<void(ResidualRecomputeParams&)>;

  void run(Where where, const Mutate& mutate = {}) {
    if (where == Where::cpu) {
      ResidualRecomputeParams p = host(cache_.host());
      if (mutate) {
        mutate(p);
      }
      residual_recompute_cpu(p, 2);
      return;
    }
    ResidualRecomputeParams p = host(cache_.device());
    const DeviceArray<Bf16> weights(weights_);
    const DeviceArray<Bf16> norm_weight(norm_weight_);
    const DeviceArray<Bf16> k_norm_weight(k_norm_weight_);
    const DeviceArray<std::int32_t> sequences(sequences_);
    const DeviceArray<std::int32_t> slots(slots_);
    const DeviceArray<std::int32_t> positions(positions_);
    const DeviceArray<std::uint64_t> turns(turns_);
    p.x = x_.device();
    p.x_v = case_.separate_v ? x_v_.device() : StoredRows{};
    p.weights = weights.data();
    p.norm_weight = case_.norm ? norm_weight.data() : nullptr;
    p.k_norm_weight = case_.k_norm ? k_norm_weight.data() : nullptr;
    p.to.rope.turns_per_position = turns.data();
    p.to.sequences = sequences.data();
    p.to.slots = slots.data();
    p.to.positions = positions.data();
    if (mutate) {
      mutate(p);
    }
    const DeviceArray<std::byte> scratch(residual_recompute_scratch_bytes(p));
    residual_recompute_launch(p, scratch.data());
    synchronize();
    cache_.download();
  }

  /// The cache against the reference.
  Comparison compare_with_reference(Where where) const {
    const int width = case_.n_kv_heads * case_.head_dim;
    const std::size_t n = static_cast<std::size_t>(case_.n_tokens) * width;
    std::vector<double> k(n), v(n), k_magnitude(n), v_magnitude(n);
    residual_recompute_reference(host(cache_.host()),
                                 {k.data(), v.data(), k_magnitude.data(), v_magnitude.data()});
    std::vector<double> got, want, bound;
    for (int token = 0; token < case_.n_tokens; ++token) {
      for (int head = 0; head < case_.n_kv_heads; ++head) {
        const std::size_t row = static_cast<std::size_t>(token) * width + head * case_.head_dim;
        append(where, cache_.value(0, head, token), &v[row], &v_magnitude[row], got, want, bound);
        rotate(&k[row], &k_magnitude[row], token);
        append(where, cache_.key(0, head, token), &k[row], &k_magnitude[row], got, want, bound);
      }
    }
    return compare<double>(got, want, bound);
  }

 private:
  void rotate(double* k, double* magnitude, int token) const {
    const int half = case_.rotary_dim / 2;
    for (int i = 0; i < half; ++i) {
      const double turns = static_cast<double>(turns_[i]) * 0x1p-64 * positions_[token];
      const double angle = 2.0 * std::numbers::pi * (turns - std::floor(turns));
      const double x = k[i];
      const double y = k[i + half];
      k[i] = x * std::cos(angle) - y * std::sin(angle);
      k[i + half] = x * std::sin(angle) + y * std::cos(angle);
      magnitude[i] = magnitude[i + half] = magnitude[i] + magnitude[i + half];
    }
  }

  /// The device rounds to Bf16 the normalised row, each product and each normed key; the CPU keeps
  /// floats. Then the cache's own format rounds.
  void append(Where where,
              const std::vector<double>& stored,
              const double* reference,
              const double* magnitude,
              std::vector<double>& got,
              std::vector<double>& want,
              std::vector<double>& bound) const {
    const double bf16 = where == Where::device ? kUnitRoundoffBf16 : 0.0;
    const double largest =
        std::fabs(*std::max_element(reference, reference + case_.head_dim, [](double a, double b) {
          return std::fabs(a) < std::fabs(b);
        }));
    for (int i = 0; i < case_.head_dim; ++i) {
      got.push_back(stored[i]);
      want.push_back(reference[i]);
      const double computed =
          dot_bound(reference[i], magnitude[i], 2L * case_.n_columns, {.operands = 3.0 * bf16});
      const double rotated = rope_bound(magnitude[i]);
      const double reach = largest + 2.0 * computed;
      bound.push_back(
          computed + rotated +
          storage_bound(case_.format, {std::fabs(reference[i]) + computed, reach, reach}));
    }
  }

  Case case_;
  KvCacheData cache_;
  Rows x_, x_v_;
  std::vector<Bf16> weights_, norm_weight_, k_norm_weight_;
  std::vector<std::int32_t> sequences_, slots_, positions_;
  std::vector<std::uint64_t> turns_;
};

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

std::vector<Case> cases() {
  std::vector<Case> all = {
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
  for (const Case& of : cases()) {
    SCOPED_TRACE(testing::Message() << of.n_tokens << " tokens, " << of.n_columns << " columns, "
                                    << of.bits << " bits, " << name(of.format));
    Problem problem(of);
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
  DeviceInfo turing = device();
  turing.compute_capability = 75;
  turing.shared_bytes_per_block = 64 << 10;
  simt::set_emulated_device(turing);
  Problem problem({.n_tokens = 9, .k_norm = true, .rotary_dim = 32});
  problem.run(Where::device);
  simt::set_emulated_device({});
  EXPECT_TRUE(within(problem.compare_with_reference(Where::device)));
}

TEST(ResidualRecompute, NoticesWrongArguments) {
  const std::vector<Problem::Mutate> wrong = {
      [](auto& p) { p.to.n_tokens -= 1; },
      [](auto& p) { p.norm_epsilon = 0.3F; },
      [](auto& p) { p.norm_weight = nullptr; },
      [](auto& p) { p.k_norm_weight = nullptr; },
      [](auto& p) { p.to.positions += 1, p.to.n_tokens -= 1; },
      [](auto& p) { p.to.rope.style = RopeStyle::pairs; },
      [](auto& p) { p.weights += p.x.n_columns, p.to.n_tokens -= 1; },
  };
  for (const Where where : {Where::cpu, Where::device}) {
    if (where == Where::device && !device_missing().empty()) {
      continue;
    }
    for (std::size_t i = 0; i < wrong.size(); ++i) {
      Problem problem({.n_tokens = 5, .k_norm = true, .rotary_dim = 32});
      problem.run(where, wrong[i]);
      EXPECT_FALSE(problem.compare_with_reference(where).holds()) << i;
    }
  }
}

const Case kSmall{.n_tokens = 2, .n_columns = 32, .n_kv_heads = 1, .k_norm = true};

TEST(ResidualRecomputeSmall, NoScheduleChangesTheResult) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    Problem problem(kSmall);
    problem.run(Where::device);
    EXPECT_TRUE(within(problem.compare_with_reference(Where::device)));
  });
}

TEST(ResidualRecomputeSmall, EverySyncMatters) {
  SKIP_WITHOUT_DEVICE();
  // More depth than the ring of the product holds, so that a stage is filled again.
  expect_every_sync_matters([] {
    Problem problem(
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
  for (const Case& of : cases()) {
    Problem problem(of);
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
