#include "calibrate/program/plan.h"

#include <cmath>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "calibrate/program/fit_classes.h"

namespace kvfathom::calibrate {
namespace {

TEST(CalibrationPlan, EveryClassHasPointsForItsTermsAndSomeHeldOut) {
  for (const bool full : {false, true}) {
    const Plan plan = make_plan({.full = full});
    std::map<std::size_t, int> fitted;
    std::map<std::size_t, int> held_out;
    std::set<std::string> names;
    for (const PlannedPoint& point : plan.points) {
      ++(point.held_out ? held_out : fitted)[point.class_index];
      EXPECT_TRUE(names.insert(std::to_string(point.class_index) + point.name()).second)
          << "twice: " << point.name();
    }
    ASSERT_FALSE(plan.classes.empty());
    for (std::size_t i = 0; i < plan.classes.size(); ++i) {
      const FitTerms& terms = plan.classes[i].terms;
      const int n_terms = 1 + (terms.bandwidth ? 1 : 0) + (terms.flops ? 1 : 0);
      // Five points a term, or the least that a fit takes where memory alone is told apart.
      EXPECT_GE(fitted[i], terms.flops ? 5 * n_terms : 5) << text_of(plan.classes[i].id);
      EXPECT_GE(held_out[i], 1) << text_of(plan.classes[i].id);
    }
  }
}

TEST(CalibrationPlan, OrderFollowsTheSeed) {
  const Plan one = make_plan({.seed = 1});
  const Plan again = make_plan({.seed = 1});
  const Plan other = make_plan({.seed = 2});
  const auto names = [](const Plan& plan) {
    std::vector<std::string> all;
    for (const PlannedPoint& point : plan.points) {
      all.push_back(point.name());
    }
    return all;
  };
  EXPECT_EQ(names(one), names(again));
  EXPECT_NE(names(one), names(other));
}

TEST(CalibrationPlan, FitsFindTheLawThatMadeTheTimes) {
  // 5 us and 20 GB/s: what the fit must say of times that follow it exactly.
  const Plan plan = make_plan({.only = "decode_attention/bf16/d128/g4"});
  ASSERT_EQ(plan.classes.size(), 1U);
  std::map<std::string, double> times_s;
  for (const PlannedPoint& point : plan.points) {
    const OpCost cost = point.kernel->make_case(point.request).cost;
    times_s[point.name()] = 5e-6 + (cost.read + cost.written).value() / 20e9;
  }
  const auto classes = fit_classes(plan, times_s, {}, 0);
  ASSERT_EQ(classes.size(), 1U);
  EXPECT_NEAR(classes[0].law.fixed.value(), 5e-6, 5e-8);
  EXPECT_NEAR(classes[0].law.bandwidth.value().value(), 20e9, 20e7);
  ASSERT_TRUE(classes[0].holdout);
  EXPECT_LT(classes[0].holdout->max, 0.01);
  EXPECT_EQ(classes[0].provenance, Provenance::measured);
}

// A prompt's 8 heads are one block each for every 128 queries, and 132 units run them in one round
// that lasts as long as a full one: what steps are priced by, a fit must count too.
TEST(CalibrationPlan, FitsCountRoundsOfBlocksAsStepsDo) {
  constexpr double kRate = 4e14;
  const Plan plan = make_plan({.full = true, .only = "prefill_attention"});
  std::map<std::string, double> times_s;
  for (const PlannedPoint& point : plan.points) {
    const OpCost cost = point.kernel->make_case(point.request).cost;
    const auto queries = static_cast<double>(point.request.shape["n_queries"]);
    const double tiles = std::ceil(queries / 128.0);
    const double whole = 132.0 / (8.0 * tiles) * (tiles * 128.0 / queries);
    times_s[point.name()] = 1e-6 + whole * cost.flops.value() / kRate;
  }
  const auto classes = fit_classes(plan, times_s, {}, 132);
  ASSERT_EQ(classes.size(), 2U);  // heads of 128 and of 64
  for (const FittedClass& fitted : classes) {
    EXPECT_NEAR(fitted.law.flops.value().value(), kRate, 0.01 * kRate);
    EXPECT_LT(fitted.loo.max, 0.01);
  }
  EXPECT_GT(fit_classes(plan, times_s, {}, 0)[0].loo.max, 0.1);
}

}  // namespace
}  // namespace kvfathom::calibrate
