#include <algorithm>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/value_reconstruction/value_reconstruction.h"
#include "tests/kernels/support/random_data.h"

namespace kvfathom::kernels {
namespace {

DenseMatrix random_matrix(int rows, int columns, std::uint64_t seed) {
  RandomData random(seed);
  DenseMatrix m(rows, columns);
  for (double& value : m.values) {
    value = random.normal();
  }
  return m;
}

TEST(Projector, ExactForSquareKeyWeights) {
  const DenseMatrix w_k = random_matrix(24, 24, 1);
  const DenseMatrix w_v = random_matrix(24, 24, 2);
  const DenseMatrix x = random_matrix(50, 24, 3);
  const DenseMatrix projector = exact_projector(w_k, w_v);
  const ProjectorLoss loss =
      projector_loss(dense_product(x, w_k), dense_product(x, w_v), projector);
  EXPECT_LT(loss.largest_error, 1e-9);
  EXPECT_NEAR(loss.r_squared, 1.0, 1e-12);
  EXPECT_THROW(static_cast<void>(exact_projector(random_matrix(24, 12, 4), w_v)), UnsupportedShape);
  EXPECT_THROW(static_cast<void>(exact_projector(DenseMatrix(24, 24), w_v)), UnsupportedShape);
}

TEST(Projector, LearnedFindsWhatIsThereAndNoMore) {
  // Half of V's variance follows from K, the other half from nothing.
  const DenseMatrix keys = random_matrix(4000, 16, 1);
  const DenseMatrix map = random_matrix(16, 8, 2);
  const DenseMatrix noise = random_matrix(4000, 8, 3);
  DenseMatrix values = dense_product(keys, map);
  for (std::size_t i = 0; i < values.values.size(); ++i) {
    values.values[i] = values.values[i] / 4.0 + noise.values[i];
  }
  const DenseMatrix learned = learned_projector(keys, values, 1.0);
  double planted_variance = 0.0;
  for (const double w : map.values) {
    planted_variance += w * w / 16.0 / 8.0;
  }
  EXPECT_NEAR(projector_loss(keys, values, learned).r_squared,
              planted_variance / (planted_variance + 1.0),
              0.06);
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      EXPECT_NEAR(learned.at(row, column), map.at(row, column) / 4.0, 0.1);
    }
  }
  const DenseMatrix unrelated = random_matrix(4000, 8, 9);
  EXPECT_LT(projector_loss(keys, unrelated, learned_projector(keys, unrelated, 1.0)).r_squared,
            0.02);
}

TEST(Projector, OutputErrorOfNothingAndOfExactMaps) {
  const DenseMatrix keys = random_matrix(400, 8, 1);
  const DenseMatrix values = random_matrix(400, 8, 2);
  const DenseMatrix none(8, 8);
  DenseMatrix weights(3, 400);
  std::fill(weights.values.begin(), weights.values.end(), 1.0 / 400.0);
  EXPECT_DOUBLE_EQ(projector_output_error(weights, keys, values, none), 1.0);
  const DenseMatrix exact = random_matrix(8, 8, 3);
  EXPECT_LT(projector_output_error(weights, keys, dense_product(keys, exact), exact), 1e-12);
}

}  // namespace
}  // namespace kvfathom::kernels
