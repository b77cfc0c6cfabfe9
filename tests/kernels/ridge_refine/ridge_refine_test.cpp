#include "kernels/ridge_refine/ridge_refine.h"

#include <cmath>
#include <numeric>

#include "kernels/common/error.h"
#include "kernels/simt/emulator_control.h"
#include "model/ops/ridge_refine.h"
#include "tests/kernels/ridge_refine/ridge_refine_case.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

using Values = std::vector<double>;

/// Outputs of softmax(q k scale) v for all rows of problem 0, written once more.
Values outputs(const RidgeCase& c, const Values& keys, const Values& values) {
  const int dim = c.shape.head_dim;
  const auto n = static_cast<int>(keys.size()) / dim;
  Values out(static_cast<std::size_t>(c.shape.n_rows) * dim, 0.0);
  for (int row = 0; row < c.shape.n_rows; ++row) {
    double sum = 0.0;
    for (int token = 0; token < n; ++token) {
      double score = 0.0;
      for (int d = 0; d < dim; ++d) {
        score += to_f32(c.queries[row * dim + d]) * keys[token * dim + d];
      }
      const double weight = std::exp(score * c.shapes().softmax_scale);
      sum += weight;
      for (int d = 0; d < dim; ++d) {
        out[row * dim + d] += weight * values[token * dim + d];
      }
    }
    for (int d = 0; d < dim; ++d) {
      out[row * dim + d] /= sum;
    }
  }
  return out;
}

Values widened(const std::vector<Bf16>& values, std::size_t n) {
  Values wide(n);
  std::transform(values.begin(),
                 values.begin() + static_cast<std::ptrdiff_t>(n),
                 wide.begin(),
                 [](Bf16 value) { return to_f32(value); });
  return wide;
}

/// The penalised objective of a step from `base` to `at`, both steps being free of the clip.
template <typename OutputsAt>
double objective(const RidgeCase& c,
                 const Values& target,
                 const Values& base,
                 const Values& at,
                 double lambda,
                 const OutputsAt& outputs_at) {
  const Values out = outputs_at(at);
  double sum = 0.0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    sum += c.row_weights[i / c.shape.head_dim] * std::pow(target[i] - out[i], 2);
  }
  for (std::size_t i = 0; i < at.size(); ++i) {
    sum += lambda * std::pow(at[i] - base[i], 2);
  }
  return sum;
}

RidgeCase unclipped_case() {
  RidgeCase c(RidgeShape{1, 30, 12, 5, 8, 3});
  c.settings.value_clip = c.settings.key_clip = 1e6F;
  c.settings.cg_max_iterations = 200;
  c.settings.cg_tolerance = 1e-7F;
  std::fill(c.fixed.begin(), c.fixed.end(), std::uint8_t{0});
  c.run_cpu();
  return c;
}

TEST(RidgeRefineReference, ValueStepMinimisesTheObjective) {
  RidgeCase c = unclipped_case();
  const RidgeRefineReference r = ridge_refine_reference(c.params(), 0);
  const Values keys = widened(c.k_kept, r.keys.size());
  const Values base = widened(c.v_kept, r.values.size());
  const auto at = [&](const Values& values) {
    return objective(c, r.target, base, values, c.settings.lambda_v, [&](const Values& v) {
      return outputs(c, keys, v);
    });
  };
  const double lowest = at(r.values);
  EXPECT_LT(lowest, at(base) * 0.9);
  for (std::size_t i = 0; i < r.values.size(); i += 7) {  // quadratic: its slope there is zero
    Values up = r.values;
    Values down = r.values;
    up[i] += 1e-3, down[i] -= 1e-3;
    EXPECT_NEAR(at(up), at(down), 1e-10);
    EXPECT_GT(at(up), lowest);
  }
}

TEST(RidgeRefineReference, KeyStepMinimisesTheLinearisedObjective) {
  RidgeCase c = unclipped_case();
  const RidgeRefineReference r = ridge_refine_reference(c.params(), 0);
  const Values base = widened(c.k_kept, r.keys.size());
  const Values values = widened(c.v_stepped, r.values.size());
  // out(base + step) by differences of the true softmax, for any step: it is linear here.
  const Values at_base = outputs(c, base, values);
  std::vector<Values> slopes;
  for (std::size_t i = 0; i < base.size(); ++i) {
    Values up = base;
    Values down = base;
    up[i] += 1e-4, down[i] -= 1e-4;
    Values slope = outputs(c, up, values);
    const Values low = outputs(c, down, values);
    for (std::size_t j = 0; j < slope.size(); ++j) {
      slope[j] = (slope[j] - low[j]) / 2e-4;
    }
    slopes.push_back(slope);
  }
  const auto at = [&](const Values& keys) {
    return objective(c, r.target, base, keys, c.settings.lambda_k, [&](const Values& k) {
      Values out = at_base;
      for (std::size_t i = 0; i < k.size(); ++i) {
        for (std::size_t j = 0; j < out.size(); ++j) {
          out[j] += slopes[i][j] * (k[i] - base[i]);
        }
      }
      return out;
    });
  };
  EXPECT_LT(at(r.keys), at(base));
  for (std::size_t i = 0; i < r.keys.size(); i += 5) {
    Values up = r.keys;
    Values down = r.keys;
    up[i] += 1e-2, down[i] -= 1e-2;
    EXPECT_NEAR(at(up), at(down), 1e-7);
  }
}

TEST(RidgeRefineReference, NothingToDoWhereEverythingIsKept) {
  RidgeCase c(RidgeShape{1, 20, 20, 6, 16});
  c.run_cpu();
  const RidgeRefineReference r = ridge_refine_reference(c.params(), 0);
  EXPECT_LT(r.loss_kept, 1e-25);
  EXPECT_EQ(r.cg_iterations, 0);
  EXPECT_TRUE(rows_equal(c, 0, c.v_out, c.v_kept));
  EXPECT_TRUE(rows_equal(c, 0, c.k_out, c.k_kept));
}

TEST(RidgeRefineReference, StepsAreClippedAndSpareTheGuards) {
  RidgeCase c(RidgeShape{1, 60, 20, 9, 16, 5});
  c.settings.value_clip = 0.01F;
  c.settings.key_clip = 0.001F;
  c.run_cpu();
  const RidgeRefineReference r = ridge_refine_reference(c.params(), 0);
  for (const bool keys : {false, true}) {
    const Values base = widened(keys ? c.k_kept : c.v_kept, r.keys.size());
    const Values& stepped = keys ? r.keys : r.values;
    double step = 0.0;
    double length = 0.0;
    for (std::size_t i = 0; i < base.size(); ++i) {
      step += std::pow(stepped[i] - base[i], 2);
      length += std::pow(base[i], 2);
      if (c.fixed[i / c.shape.head_dim] != 0) {
        EXPECT_EQ(stepped[i], base[i]);
      }
    }
    EXPECT_NEAR(std::sqrt(step / length), keys ? 0.001 : 0.01, 1e-9);
  }
}

const RidgeShape kShapes[] = {
    {1, 1, 1, 1, 8},        // one token, kept
    {1, 2, 1, 3, 8},        // one kept of two
    {2, 63, 16, 15, 16},    // one short of a tile
    {2, 64, 17, 16, 24},    // a tile
    {3, 65, 64, 17, 64},    // one more; a tile of kept tokens
    {2, 150, 65, 33, 80},   // two row blocks of the factor
    {1, 130, 70, 65, 128},  // two row tiles
    {1, 90, 20, 12, 200},   // four column chunks
};

std::string shape_text(const RidgeShape& s) {
  return "T" + std::to_string(s.n_tokens) + " kept " + std::to_string(s.kept_capacity) + " rows " +
         std::to_string(s.n_rows) + " D" + std::to_string(s.head_dim);
}

TEST(RidgeRefineCpu, MatchesTheReference) {
  for (const RidgeShape& shape : kShapes) {
    SCOPED_TRACE(shape_text(shape));
    RidgeCase c(shape);
    for (const int threads : {1, 2}) {
      c.run_cpu(threads);
      EXPECT_TRUE(refined_rightly(c));
    }
  }
}

TEST(RidgeRefineCpu, RefinementLowersTheLoss) {
  RidgeCase c(RidgeShape{2, 300, 40, 32, 64, 9});
  c.settings = RidgeRefineSettings{};  // as published
  c.run_cpu();
  for (const RidgeRefineOutcome& outcome : c.outcome) {
    EXPECT_LT(outcome.loss_values, 0.9F * outcome.loss_kept);
    EXPECT_LT(outcome.loss_both, outcome.loss_values);
    EXPECT_EQ(outcome.choice, RidgeRefineOutcome::values_and_keys);
  }
}

TEST(RidgeRefineCpu, DominantTokensAndExtremeScores) {
  RidgeCase c(RidgeShape{1, 70, 20, 8, 32, 4});
  for (int d = 0; d < 32; ++d) {  // the last token, which is kept, answers query 0 alone
    const Bf16 key = to_bf16(4.0F * to_f32(c.queries[d]));
    c.k_full[(c.shape.n_tokens - 1) * 32 + d] = key;
    c.k_kept[(c.n_kept[0] - 1) * 32 + d] = key;
  }
  c.run_cpu();
  EXPECT_TRUE(refined_rightly(c));
}

TEST(RidgeRefineCpu, NothingKept) {
  RidgeCase c(RidgeShape{1, 30, 4, 5, 16});
  c.n_kept[0] = 0;
  c.run_cpu();
  EXPECT_TRUE(refined_rightly(c));
  EXPECT_GT(c.outcome[0].loss_kept, 0.0F);
}

TEST(RidgeRefineCpu, NanInTheQueriesKeepsTheBaseline) {
  RidgeCase c(RidgeShape{1, 30, 10, 5, 16});
  c.queries[3] = kPoison;
  c.run_cpu();
  EXPECT_NE(c.outcome[0].failed_pivot, 0);
  EXPECT_EQ(c.outcome[0].choice, RidgeRefineOutcome::kept);
  EXPECT_TRUE(rows_equal(c, 0, c.v_out, c.v_kept));
}

TEST(RidgeRefine, Refusals) {
  RidgeCase c(RidgeShape{1, 8, 4, 2, 8});
  const auto refuses = [&](auto mutate) { EXPECT_THROW(c.run_cpu(1, mutate), UnsupportedShape); };
  refuses([](RidgeRefineParams& p) { p.head_dim = 12; });
  refuses([](RidgeRefineParams& p) { p.head_dim = 264; });
  refuses([](RidgeRefineParams& p) { p.n_rows = 0; });
  refuses([](RidgeRefineParams& p) { p.settings.lambda_v = 0.0F; });
}

TEST(RidgeRefineDevice, MatchesTheReference) {
  SKIP_WITHOUT_DEVICE();
  for (const RidgeShape& shape : kShapes) {
    SCOPED_TRACE(shape_text(shape));
    RidgeCase c(shape);
    c.run_device(shape.n_tokens % 2 == 0 ? 1 : 3);
    EXPECT_TRUE(refined_rightly(c));
  }
}

TEST(RidgeRefineDevice, FactorInGlobalMemoryWhereSharedMemoryIsSmall) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "a device's shared memory is what it is";
  }
  DeviceInfo small = device();
  small.compute_capability = 75;
  small.shared_bytes_per_block = 48 * 1024;
  simt::set_emulated_device(small);
  RidgeCase c(RidgeShape{1, 100, 30, 170, 16});
  c.run_device(2);
  EXPECT_TRUE(refined_rightly(c));
  simt::set_emulated_device({});
}

TEST(RidgeRefineDevice, NothingKeptAndNan) {
  SKIP_WITHOUT_DEVICE();
  RidgeCase c(RidgeShape{1, 30, 4, 5, 16});
  c.n_kept[0] = 0;
  c.run_device();
  EXPECT_TRUE(refined_rightly(c));

  RidgeCase nan(RidgeShape{1, 30, 10, 5, 16});
  nan.queries[3] = kPoison;
  nan.run_device();
  EXPECT_NE(nan.outcome[0].failed_pivot, 0);
  EXPECT_EQ(nan.outcome[0].choice, RidgeRefineOutcome::kept);
  EXPECT_TRUE(rows_equal(nan, 0, nan.v_out, nan.v_kept));
}

TEST(RidgeRefineDevice, StopsAtTheIterationLimit) {
  SKIP_WITHOUT_DEVICE();
  RidgeCase c(RidgeShape{2, 40, 10, 6, 16});
  c.settings.lambda_k = 0.01F;
  c.settings.cg_max_iterations = 3;
  c.run_device();
  EXPECT_EQ(c.outcome[0].cg_iterations, 3);
  EXPECT_EQ(c.outcome[1].cg_iterations, 3);
}

TEST(RidgeRefineDevice, WrongArgumentsAreNoticed) {
  SKIP_WITHOUT_DEVICE();
  RidgeCase c(RidgeShape{1, 70, 20, 9, 16, 2});
  const int last = c.shape.n_tokens - 1;
  for (int d = 0; d < 16; ++d) {  // so that the last token cannot be missed
    c.k_full[last * 16 + d] = to_bf16(3.0F * to_f32(c.queries[d]));
  }
  c.run_device();
  ASSERT_TRUE(refined_rightly(c));
  const auto notices = [&](auto mutate) {
    c.run_device(1, mutate);
    EXPECT_FALSE(refined_rightly(c));
  };
  notices([](RidgeRefineParams& p) { --p.n_tokens; });
  notices([](RidgeRefineParams& p) { p.softmax_scale *= 1.01F; });
  notices([](RidgeRefineParams& p) { p.k_kept = p.v_kept; });
  notices([](RidgeRefineParams& p) { p.fixed = nullptr; });
  notices([](RidgeRefineParams& p) { p.settings.value_clip *= 0.5F; });
  notices([](RidgeRefineParams& p) { p.settings.key_clip *= 0.5F; });
  notices([](RidgeRefineParams& p) { p.settings.cg_max_iterations = 0; });
  notices([](RidgeRefineParams& p) { p.row_weights += 1, p.n_rows -= 1; });
}

TEST(RidgeRefineDevice, MovesTheBytesOfTheFormula) {
  SKIP_WITHOUT_DEVICE();
  for (const bool in_shared : {true, false}) {
    const RidgeShape shape{2, 70, 21, in_shared ? 18 : 157, 24};
    RidgeCase c(shape);
    RandomData random(8);
    c.keep(0, 20, random);
    c.keep(1, 20, random);
    if (!in_shared && device().emulated) {
      DeviceInfo small = device();
      small.shared_bytes_per_block = 48 * 1024;
      simt::set_emulated_device(small);
    }
    static_cast<void>(simt::take_traffic());
    c.run_device(2);
    const auto traffic = simt::take_traffic();
    simt::set_emulated_device({});
    if (!traffic) {
      return;
    }
    ASSERT_EQ(c.outcome[0].cg_iterations, c.outcome[1].cg_iterations);
    const OpCost cost = ridge_refine_cost({.n_problems = 2,
                                           .n_tokens = shape.n_tokens,
                                           .n_kept = 20,
                                           .n_rows = shape.n_rows,
                                           .head_dim = shape.head_dim,
                                           .n_splits = 2,
                                           .cg_iterations = c.outcome[0].cg_iterations,
                                           .cg_max_iterations = c.settings.cg_max_iterations});
    EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
    EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
  }
}

/// No sum depends on the order of threads, so two runs differ only by a mistake.
bool same_bits(const RidgeCase& a, const RidgeCase& b) {
  const auto equal = [](const std::vector<Bf16>& x, const std::vector<Bf16>& y) {
    return std::equal(
        x.begin(), x.end(), y.begin(), [](Bf16 u, Bf16 v) { return u.bits == v.bits; });
  };
  return equal(a.v_stepped, b.v_stepped) && equal(a.k_stepped, b.k_stepped) &&
         a.outcome[0].loss_kept == b.outcome[0].loss_kept &&
         a.outcome[0].loss_values == b.outcome[0].loss_values &&
         a.outcome[0].loss_both == b.outcome[0].loss_both;
}

RidgeCase smallest_case() {
  RidgeCase c(RidgeShape{1, 40, 18, 18, 24, 6});
  c.settings.lambda_k = 0.1F;
  c.settings.key_clip = 10.0F;  // a large step: what is wrong with it must show
  c.settings.cg_max_iterations = 4;
  return c;
}

TEST(RidgeRefineSmall, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  RidgeCase c = smallest_case();
  c.run_device(2);
  EXPECT_TRUE(refined_rightly(c));
  const RidgeCase first = c;
  under_every_schedule([&] {
    c.run_device(2);
    EXPECT_TRUE(same_bits(c, first));
  });
}

TEST(RidgeRefineSmall, EverySynchronisationMatters) {
  SKIP_WITHOUT_DEVICE();
  RidgeCase c = smallest_case();
  c.run_device(1);
  const RidgeCase first = c;
  expect_every_sync_matters([&] {
    c.run_device(1);
    return same_bits(c, first);
  });
}

}  // namespace
}  // namespace kvfathom::kernels
