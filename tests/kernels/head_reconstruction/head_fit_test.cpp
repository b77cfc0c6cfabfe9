#include "kernels/head_reconstruction/head_fit.h"

#include <cmath>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/kernels/support/random_data.h"

namespace kvfathom::kernels {
namespace {

constexpr int kSamples = 800;
constexpr int kDim = 4;

DenseMatrix random_matrix(int rows, int columns, RandomData& random) {
  DenseMatrix m(rows, columns);
  for (double& value : m.values) {
    value = random.normal();
  }
  return m;
}

/// A head that is a map of others, an offset, and noise.
DenseMatrix mapped(const std::vector<DenseMatrix>& heads,
                   const std::vector<int>& from,
                   double noise,
                   RandomData& random) {
  DenseMatrix sum = random_matrix(kSamples, kDim, random);
  for (double& value : sum.values) {
    value = value * noise + 3.0;
  }
  for (const int reference : from) {
    const DenseMatrix part = dense_product(heads[reference], random_matrix(kDim, kDim, random));
    for (std::size_t i = 0; i < sum.values.size(); ++i) {
      sum.values[i] += part.values[i] / 2.0;
    }
  }
  return sum;
}

TEST(HeadFit, FindsAPlantedMap) {
  RandomData random(1);
  const std::vector<DenseMatrix> heads = {random_matrix(kSamples, kDim, random),
                                          random_matrix(kSamples, kDim, random),
                                          random_matrix(kSamples, kDim, random)};
  const DenseMatrix target = mapped(heads, {0, 2}, 0.0, random);
  const HeadMap both = fit_head_map({&heads[0], &heads[2]}, target);
  EXPECT_NEAR(both.r_squared, 1.0, 1e-9);
  for (const double offset : both.bias) {
    EXPECT_NEAR(offset, 3.0, 1e-6);
  }
  EXPECT_EQ(both.weights.rows, 2 * kDim);
  // One of two references explains its half; a head that has nothing to do with it, nothing.
  const double half = fit_head_map({&heads[0]}, target).r_squared;
  EXPECT_GT(half, 0.15);
  EXPECT_LT(half, 0.85);
  EXPECT_LT(fit_head_map({&heads[1]}, target).r_squared, 0.05);
}

TEST(HeadFit, NoiseIsNotExplained) {
  RandomData random(2);
  const std::vector<DenseMatrix> heads = {random_matrix(kSamples, kDim, random)};
  const DenseMatrix quiet = mapped(heads, {0}, 0.1, random);
  const DenseMatrix loud = mapped(heads, {0}, 3.0, random);
  EXPECT_GT(fit_head_map({&heads[0]}, quiet).r_squared, 0.95);
  EXPECT_LT(fit_head_map({&heads[0]}, loud).r_squared, 0.4);
  EXPECT_THROW(static_cast<void>(fit_head_map({}, quiet)), UnsupportedShape);
}

TEST(HeadFit, ChoosesThePlantedTargetsAndTheirReferences) {
  // Layer 0: four free heads. Layer 1: two heads that each follow from all four. Layer 2: two
  // free heads, which nothing explains.
  RandomData random(3);
  std::vector<DenseMatrix> heads;
  for (int i = 0; i < 4; ++i) {
    heads.push_back(random_matrix(kSamples, kDim, random));
  }
  heads.push_back(mapped(heads, {0, 1, 2, 3}, 0.05, random));
  heads.push_back(mapped(heads, {0, 1, 2, 3}, 0.05, random));
  heads.push_back(random_matrix(kSamples, kDim, random));
  heads.push_back(random_matrix(kSamples, kDim, random));
  const std::vector<int> layers = {0, 0, 0, 0, 1, 1, 2, 2};
  const DenseMatrix r_squared = pairwise_r_squared(heads, layers);
  EXPECT_EQ(r_squared.at(6, 0), 0.0);  // a later layer
  EXPECT_GT(r_squared.at(0, 4), 0.05);
  EXPECT_LT(r_squared.at(6, 7), 0.05);

  ReferenceChoiceSettings settings;
  settings.target_share = 0.25;
  settings.least_r_squared = 0.05;
  const ReferenceChoice choice = choose_references(r_squared, layers, settings);
  const std::vector<bool> want = {false, false, false, false, true, true, false, false};
  EXPECT_EQ(choice.predicted, want);
  for (const int head : {4, 5}) {
    EXPECT_EQ(choice.references[head], (std::vector<int>{0, 1, 2, 3}));
    std::vector<const DenseMatrix*> references;
    for (const int reference : choice.references[head]) {
      references.push_back(&heads[reference]);
    }
    EXPECT_GT(fit_head_map(references, heads[head]).r_squared, 0.98);
  }
}

TEST(HeadFit, EveryPredictedHeadKeepsItsReferences) {
  // Any pair is an edge: the greedy must stop where targets would lose their fourth reference.
  const int n = 12;
  DenseMatrix r_squared(n, n);
  std::vector<int> layers;
  RandomData random(4);
  for (int i = 0; i < n; ++i) {
    layers.push_back(i / 3);
    for (int j = 0; j < n; ++j) {
      r_squared.at(i, j) = 0.6 + 0.03 * random.integer(0, 10);
    }
  }
  const ReferenceChoice choice = choose_references(r_squared, layers);
  int n_predicted = 0;
  for (int head = 0; head < n; ++head) {
    n_predicted += choice.predicted[head] ? 1 : 0;
    if (!choice.predicted[head]) {
      EXPECT_TRUE(choice.references[head].empty());
      continue;
    }
    EXPECT_GE(choice.references[head].size(), 4U);
    EXPECT_LE(choice.references[head].size(), 6U);
    for (const int reference : choice.references[head]) {
      EXPECT_FALSE(choice.predicted[reference]);
      EXPECT_LE(layers[reference], layers[head]);
      EXPECT_GE(r_squared.at(reference, head), choice.threshold);
    }
  }
  EXPECT_GE(n_predicted, 5);
  EXPECT_LE(n_predicted, 7);
}

}  // namespace
}  // namespace kvfathom::kernels
