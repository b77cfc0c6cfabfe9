// Holding a kernel's output to the reference, and saying where it is worst.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "kernels/common/device.h"

namespace kvfathom::kernels {

struct Comparison {
  double worst_ratio = 0.0;  ///< largest |got - want| / bound; infinite where NaN or inf disagree
  std::size_t worst_index = 0;
  std::size_t n_outside = 0;
  std::size_t n = 0;
  double got = 0.0, want = 0.0, bound = 0.0;  ///< at the worst index

  [[nodiscard]] bool holds() const { return n_outside == 0; }
};

/// got[i] within bound[i] of want[i]; NaN only where NaN is wanted, infinities equal.
template <typename Got>
Comparison compare(std::span<const Got> got,
                   std::span<const double> want,
                   std::span<const double> bound) {
  Comparison c;
  c.n = want.size();
  EXPECT_EQ(got.size(), want.size());
  EXPECT_EQ(bound.size(), want.size());
  for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    const double g = static_cast<double>(got[i]);
    double ratio = std::fabs(g - want[i]) / bound[i];
    if (std::isnan(want[i]) || std::isinf(want[i]) || std::isnan(g) || std::isinf(g)) {
      const bool same = (std::isnan(g) && std::isnan(want[i])) || g == want[i];
      ratio = same ? 0.0 : INFINITY;
    } else if (g == want[i]) {
      ratio = 0.0;
    }
    c.n_outside += ratio > 1.0 ? 1 : 0;
    if (ratio > c.worst_ratio) {
      c.worst_ratio = ratio, c.worst_index = i;
      c.got = g, c.want = want[i], c.bound = bound[i];
    }
  }
  return c;
}

/// For EXPECT_TRUE: fails with the worst place, both values and how many are outside.
inline testing::AssertionResult within(const Comparison& c) {
  if (c.holds()) {
    return testing::AssertionSuccess();
  }
  std::ostringstream text;
  text << c.n_outside << " of " << c.n << " values are off; the worst, [" << c.worst_index
       << "], is " << c.got << " for " << c.want << ", " << c.worst_ratio << " times the bound "
       << c.bound;
  return testing::AssertionFailure() << text.str();
}

template <typename Got>
testing::AssertionResult close_to(std::span<const Got> got,
                                  std::span<const double> want,
                                  std::span<const double> bound) {
  return within(compare<Got>(got, want, bound));
}

}  // namespace kvfathom::kernels

/// First line of every test that launches: without a device it is skipped, and says why.
#define SKIP_WITHOUT_DEVICE()                                          \
  do {                                                                 \
    const std::string missing = ::kvfathom::kernels::device_missing(); \
    if (!missing.empty()) {                                            \
      GTEST_SKIP() << missing;                                         \
    }                                                                  \
  } while (false)
