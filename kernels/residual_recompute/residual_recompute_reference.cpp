#include <cmath>
#include <vector>

#include "kernels/residual_recompute/residual_recompute.h"

namespace kvfathom::kernels {
namespace {

std::vector<double> normalised_row(const StoredRows& rows,
                                   std::int64_t token,
                                   const Bf16* weight,
                                   double epsilon) {
  std::vector<double> row(rows.n_columns);
  double squares = 0.0;
  for (int c = 0; c < rows.n_columns; ++c) {
    row[c] = stored_value(rows, token, c);
    squares += row[c] * row[c];
  }
  if (weight != nullptr) {
    const double inverse = 1.0 / std::sqrt(squares / rows.n_columns + epsilon);
    for (int c = 0; c < rows.n_columns; ++c) {
      row[c] *= inverse * to_f32(weight[c]);
    }
  }
  return row;
}

void project(const std::vector<double>& row,
             const Bf16* weights,
             std::int64_t n_out,
             double* out,
             double* magnitude) {
  for (std::int64_t o = 0; o < n_out; ++o) {
    out[o] = magnitude[o] = 0.0;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const double product =
          row[c] * to_f32(weights[o * static_cast<std::int64_t>(row.size()) + c]);
      out[o] += product;
      magnitude[o] += std::fabs(product);
    }
  }
}

/// Errors pass through the norm twice: as those of the element itself, and of the root mean square.
void norm_head(const Bf16* weight, double epsilon, int n, double* k, double* magnitude) {
  double squares = 0.0;
  double magnitude_squares = 0.0;
  for (int i = 0; i < n; ++i) {
    squares += k[i] * k[i];
    magnitude_squares += magnitude[i] * magnitude[i];
  }
  const double inverse = 1.0 / std::sqrt(squares / n + epsilon);
  const double relative = std::sqrt(magnitude_squares / n) * inverse;
  for (int i = 0; i < n; ++i) {
    const double scale = inverse * to_f32(weight[i]);
    k[i] *= scale;
    magnitude[i] = magnitude[i] * std::fabs(scale) + std::fabs(k[i]) * relative;
  }
}

}  // namespace

void residual_recompute_reference(const ResidualRecomputeParams& p,
                                  const ResidualRecomputeReference& result) {
  const int head_dim = p.to.head_dim;
  const std::int64_t width = std::int64_t{p.to.cache.n_kv_heads} * head_dim;
  const StoredRows& x_v = p.x_v.data != nullptr ? p.x_v : p.x;
  for (std::int64_t token = 0; token < p.to.n_tokens; ++token) {
    const std::vector<double> of_k = normalised_row(p.x, token, p.norm_weight, p.norm_epsilon);
    const std::vector<double> of_v = normalised_row(x_v, token, p.norm_weight, p.norm_epsilon);
    const std::int64_t at = token * width;
    project(of_k, p.weights, width, result.k + at, result.k_magnitude + at);
    project(of_v, p.weights + width * p.x.n_columns, width, result.v + at, result.v_magnitude + at);
    for (int head = 0; p.k_norm_weight != nullptr && head < p.to.cache.n_kv_heads; ++head) {
      const std::int64_t row = at + std::int64_t{head} * head_dim;
      norm_head(
          p.k_norm_weight, p.k_norm_epsilon, head_dim, result.k + row, result.k_magnitude + row);
    }
  }
}

}  // namespace kvfathom::kernels
