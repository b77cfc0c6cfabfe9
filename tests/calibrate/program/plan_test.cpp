#include "calibrate/program/plan.h"

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
  const auto classes = fit_classes(plan, times_s, {});
  ASSERT_EQ(classes.size(), 1U);
  EXPECT_NEAR(classes[0].law.fixed.value(), 5e-6, 5e-8);
  EXPECT_NEAR(classes[0].law.bandwidth.value().value(), 20e9, 20e7);
  ASSERT_TRUE(classes[0].holdout);
  EXPECT_LT(classes[0].holdout->max, 0.01);
  EXPECT_EQ(classes[0].provenance, Provenance::measured);
}

}  // namespace
}  // namespace kvfathom::calibrate
