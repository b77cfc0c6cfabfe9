// The projector of a k-only cache: exact or learned, and what it loses.
#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/common/error.h"
#include "kernels/value_reconstruction/value_reconstruction.h"

namespace kvfathom::kernels {

std::vector<float> rotation_cos_sin(int head_dim, double base, int n_positions) {
  std::vector<float> table;
  for (int position = 0; position < n_positions; ++position) {
    for (int i = 0; i < head_dim / 2; ++i) {
      const double angle = position * std::pow(base, -2.0 * i / head_dim);
      table.push_back(static_cast<float>(std::cos(angle)));
      table.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return table;
}

DenseMatrix exact_projector(const DenseMatrix& w_k, const DenseMatrix& w_v) {
  if (w_k.rows != w_k.columns) {
    throw UnsupportedShape("W_K is " + std::to_string(w_k.rows) + " x " +
                           std::to_string(w_k.columns) +
                           ": values follow exactly from keys only where it is square");
  }
  return solve_square(w_k, w_v);
}

DenseMatrix learned_projector(const DenseMatrix& keys, const DenseMatrix& values, double lambda) {
  return solve_ridge(keys, values, lambda);
}

ProjectorLoss projector_loss(const DenseMatrix& keys,
                             const DenseMatrix& values,
                             const DenseMatrix& projector) {
  const DenseMatrix rebuilt = dense_product(keys, projector);
  ProjectorLoss loss;
  loss.r_squared = mean_r_squared(keys, projector, {}, values);
  for (std::size_t i = 0; i < values.values.size(); ++i) {
    loss.largest_error =
        std::max(loss.largest_error, std::fabs(values.values[i] - rebuilt.values[i]));
  }
  return loss;
}

double projector_output_error(const DenseMatrix& weights,
                              const DenseMatrix& keys,
                              const DenseMatrix& values,
                              const DenseMatrix& projector) {
  const DenseMatrix want = dense_product(weights, values);
  const DenseMatrix got = dense_product(dense_product(weights, keys), projector);
  double error = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < want.values.size(); ++i) {
    error += std::pow(want.values[i] - got.values[i], 2);
    norm += std::pow(want.values[i], 2);
  }
  return norm > 0.0 ? std::sqrt(error / norm) : 0.0;
}

}  // namespace kvfathom::kernels
