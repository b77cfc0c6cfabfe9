// Ridge refinement by the definition, in double, one problem at a time.
#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/common/tolerance.h"
#include "kernels/ridge_refine/ridge_refine.h"

namespace kvfathom::kernels {
namespace {

using Matrix = std::vector<double>;  // row-major

Matrix widened(const Bf16* values, std::int64_t n) {
  Matrix wide(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    wide[i] = to_f32(values[i]);
  }
  return wide;
}

double norm(const Matrix& m) {
  double sum = 0.0;
  for (const double value : m) {
    sum += value * value;
  }
  return std::sqrt(sum);
}

/// Attention of all rows over some tokens, and how far float may be from it.
struct Attention {
  Matrix weights;              // [n_rows, n]
  Matrix out;                  // [n_rows, head_dim]
  Matrix out_error;            // [n_rows, head_dim]
  double largest_score = 0.0;  // max over rows and tokens of scale * sum |q k|
};

struct Problem {
  const RidgeRefineParams& params;
  int rows, dim, kept;
  Matrix queries, k_kept, v_kept;
  std::vector<bool> movable;
  std::vector<double> weight;
};

Attention attend(const Problem& p, const Matrix& keys, const Matrix& values, int n) {
  Attention a;
  a.weights.assign(static_cast<std::size_t>(p.rows) * n, 0.0);
  a.out.assign(static_cast<std::size_t>(p.rows) * p.dim, 0.0);
  a.out_error = a.out;
  for (int row = 0; row < p.rows; ++row) {
    double largest = -INFINITY;
    double magnitude = 0.0;
    for (int token = 0; token < n; ++token) {
      double score = 0.0;
      double absolute = 0.0;
      for (int d = 0; d < p.dim; ++d) {
        const double product = p.queries[row * p.dim + d] * keys[token * p.dim + d];
        score += product * p.params.softmax_scale;
        absolute += std::fabs(product) * p.params.softmax_scale;
      }
      a.weights[row * n + token] = score;
      largest = std::max(largest, score);
      magnitude = std::max(magnitude, absolute);
    }
    double sum = 0.0;
    for (int token = 0; token < n; ++token) {
      a.weights[row * n + token] = std::exp(a.weights[row * n + token] - largest);
      sum += a.weights[row * n + token];
    }
    Matrix weighted_abs(static_cast<std::size_t>(p.dim), 0.0);
    for (int token = 0; token < n; ++token) {
      a.weights[row * n + token] /= sum;
      for (int d = 0; d < p.dim; ++d) {
        const double part = a.weights[row * n + token] * values[token * p.dim + d];
        a.out[row * p.dim + d] += part;
        weighted_abs[d] += std::fabs(part);
      }
    }
    for (int d = 0; d < p.dim; ++d) {
      a.out_error[row * p.dim + d] = attention_bound(
          a.out[row * p.dim + d], AttentionMagnitudes{weighted_abs[d], magnitude}, n, p.dim);
    }
    a.largest_score = std::max(a.largest_score, magnitude);
  }
  return a;
}

/// Relative error of one attention weight in float: the score's, in numerator and denominator.
double weight_error(const Problem& p, const Attention& a, int n) {
  return 4.0 * kUnitRoundoffF32 *
         (std::sqrt(static_cast<double>(n)) +
          std::sqrt(static_cast<double>(p.dim)) * (1.0 + a.largest_score));
}

/// sum_r w_r |Y_r - out_r|^2, and what it may be off by.
struct Loss {
  double value = 0.0;
  double error = 0.0;
};
Loss loss_of(const Problem& p, const Attention& full, const Attention& kept) {
  Loss loss;
  for (int row = 0; row < p.rows; ++row) {
    for (int d = 0; d < p.dim; ++d) {
      const std::size_t at = static_cast<std::size_t>(row) * p.dim + d;
      const double residual = full.out[at] - kept.out[at];
      const double error = full.out_error[at] + kept.out_error[at];
      loss.value += p.weight[row] * residual * residual;
      loss.error += p.weight[row] * (2.0 * std::fabs(residual) + error) * error;
    }
  }
  loss.error +=
      2.0 * kUnitRoundoffF32 * std::sqrt(static_cast<double>(p.rows) * p.dim) * loss.value;
  return loss;
}

/// w^1/2 (Y - out), and the norm of its error.
Matrix weighted_residual(const Problem& p,
                         const Attention& full,
                         const Attention& kept,
                         double& error) {
  Matrix residual(full.out.size());
  double sum = 0.0;
  for (std::size_t at = 0; at < residual.size(); ++at) {
    const double weight = p.weight[at / p.dim];
    residual[at] = std::sqrt(weight) * (full.out[at] - kept.out[at]);
    sum += weight * std::pow(full.out_error[at] + kept.out_error[at], 2);
  }
  error = std::sqrt(sum);
  return residual;
}

/// Solves the symmetric positive definite m x = b for each column of b, by elimination.
Matrix solve(Matrix m, Matrix b, int n, int n_columns) {
  for (int pivot = 0; pivot < n; ++pivot) {
    for (int row = pivot + 1; row < n; ++row) {
      const double factor = m[row * n + pivot] / m[pivot * n + pivot];
      for (int column = pivot; column < n; ++column) {
        m[row * n + column] -= factor * m[pivot * n + column];
      }
      for (int column = 0; column < n_columns; ++column) {
        b[row * n_columns + column] -= factor * b[pivot * n_columns + column];
      }
    }
  }
  for (int row = n - 1; row >= 0; --row) {
    for (int column = 0; column < n_columns; ++column) {
      double sum = b[row * n_columns + column];
      for (int later = row + 1; later < n; ++later) {
        sum -= m[row * n + later] * b[later * n_columns + column];
      }
      b[row * n_columns + column] = sum / m[row * n + row];
    }
  }
  return b;
}

/// base + step, the step shortened to `clip` |base|; `error` becomes that of the result.
Matrix clipped_sum(const Matrix& base, const Matrix& step, double clip, double& error) {
  const double length = norm(step);
  const double limit = clip * norm(base);
  const double factor = length > limit ? limit / length : 1.0;
  Matrix sum = base;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    sum[i] += factor * step[i];
  }
  error *= 2.0;  // once for the step, once for the length that a clip divides by
  return sum;
}

void step_values(const Problem& p,
                 const Attention& full,
                 const Attention& kept,
                 RidgeRefineReference& result) {
  const int n = p.rows;
  RidgeMagnitudes magnitudes;
  magnitudes.lambda = p.params.settings.lambda_v;
  Matrix b(static_cast<std::size_t>(n) * p.kept, 0.0);
  for (int row = 0; row < n; ++row) {
    for (int token = 0; token < p.kept; ++token) {
      if (p.movable[token]) {
        b[row * p.kept + token] = std::sqrt(p.weight[row]) * kept.weights[row * p.kept + token];
      }
    }
  }
  Matrix gram(static_cast<std::size_t>(n) * n, 0.0);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      gram[i * n + j] = i == j ? magnitudes.lambda : 0.0;
      for (int token = 0; token < p.kept; ++token) {
        gram[i * n + j] += b[i * p.kept + token] * b[j * p.kept + token];
      }
    }
  }
  const Matrix rhs = weighted_residual(p, full, kept, magnitudes.rhs_error);
  const Matrix dual = solve(gram, rhs, n, p.dim);
  Matrix step(static_cast<std::size_t>(p.kept) * p.dim, 0.0);
  for (int token = 0; token < p.kept; ++token) {
    for (int row = 0; row < n; ++row) {
      for (int d = 0; d < p.dim; ++d) {
        step[token * p.dim + d] += b[row * p.kept + token] * dual[row * p.dim + d];
      }
    }
  }
  magnitudes.operator_norm = norm(b);
  magnitudes.operator_error = weight_error(p, kept, p.kept) * magnitudes.operator_norm;
  magnitudes.dual_norm = norm(dual);
  magnitudes.n_summed = p.kept;
  magnitudes.n_rows = n;
  result.values_error = ridge_bound(magnitudes);
  result.values = clipped_sum(p.v_kept, step, p.params.settings.value_clip, result.values_error);
}

/// d out / d K at (K, V + dV), times w^1/2, as a function and its transpose.
class Linearised {
 public:
  Linearised(const Problem& p, const Attention& at, const Matrix& values)
      : p_(p), at_(at), values_(values) {}

  /// [n_rows, head_dim] of a change of the keys [n_kept, head_dim].
  [[nodiscard]] Matrix apply(const Matrix& change) const {
    Matrix y(static_cast<std::size_t>(p_.rows) * p_.dim, 0.0);
    for (int row = 0; row < p_.rows; ++row) {
      for (int token = 0; token < p_.kept; ++token) {
        double moved = 0.0;
        for (int d = 0; d < p_.dim; ++d) {
          moved += p_.queries[row * p_.dim + d] * change[token * p_.dim + d];
        }
        for (int d = 0; d < p_.dim; ++d) {
          y[row * p_.dim + d] += factor(row, token) * moved * offset(row, token, d);
        }
      }
    }
    return y;
  }
  [[nodiscard]] Matrix transposed(const Matrix& dual) const {
    Matrix change(static_cast<std::size_t>(p_.kept) * p_.dim, 0.0);
    for (int row = 0; row < p_.rows; ++row) {
      for (int token = 0; token < p_.kept; ++token) {
        double along = 0.0;
        for (int d = 0; d < p_.dim; ++d) {
          along += offset(row, token, d) * dual[row * p_.dim + d];
        }
        for (int d = 0; d < p_.dim; ++d) {
          change[token * p_.dim + d] += factor(row, token) * along * p_.queries[row * p_.dim + d];
        }
      }
    }
    return change;
  }
  /// Norm of the operator, and of what float makes of its entries.
  void measure(RidgeMagnitudes& m) const {
    const double relative = weight_error(p_, at_, p_.kept);
    const double dot = 2.0 * kUnitRoundoffF32 * std::sqrt(static_cast<double>(p_.dim));
    double norm_sum = 0.0;
    double error_sum = 0.0;
    for (int row = 0; row < p_.rows; ++row) {
      double query = 0.0;
      for (int d = 0; d < p_.dim; ++d) {
        query += std::pow(p_.queries[row * p_.dim + d], 2);
      }
      for (int token = 0; token < p_.kept; ++token) {
        const double scale = std::pow(factor(row, token), 2) * query;
        for (int d = 0; d < p_.dim; ++d) {
          const std::size_t at = static_cast<std::size_t>(row) * p_.dim + d;
          const double magnitude = std::fabs(values_[token * p_.dim + d]) + std::fabs(at_.out[at]);
          const double value = offset(row, token, d);
          const double error = relative * std::fabs(value) + dot * magnitude + at_.out_error[at];
          norm_sum += scale * value * value;
          error_sum += scale * error * error;
        }
      }
    }
    m.operator_norm = std::sqrt(norm_sum);
    m.operator_error = std::sqrt(error_sum);
  }

 private:
  [[nodiscard]] double factor(int row, int token) const {
    return p_.movable[token] ? std::sqrt(p_.weight[row]) * at_.weights[row * p_.kept + token] *
                                   p_.params.softmax_scale
                             : 0.0;
  }
  [[nodiscard]] double offset(int row, int token, int d) const {
    return values_[token * p_.dim + d] - at_.out[row * p_.dim + d];
  }

  const Problem& p_;
  const Attention& at_;
  const Matrix& values_;
};

void step_keys(const Problem& p,
               const Attention& full,
               const Attention& stepped,
               const Matrix& values,
               RidgeRefineReference& result) {
  const RidgeRefineSettings& settings = p.params.settings;
  const Linearised jacobian(p, stepped, values);
  RidgeMagnitudes magnitudes;
  magnitudes.lambda = settings.lambda_k;
  Matrix residual = weighted_residual(p, full, stepped, magnitudes.rhs_error);
  Matrix direction = residual;
  Matrix dual(residual.size(), 0.0);
  const double first = norm(residual);
  double length = first;
  while (result.cg_iterations < settings.cg_max_iterations &&
         length > settings.cg_tolerance * first) {
    Matrix image = jacobian.apply(jacobian.transposed(direction));
    double curvature = 0.0;
    for (std::size_t i = 0; i < image.size(); ++i) {
      image[i] += settings.lambda_k * direction[i];
      curvature += image[i] * direction[i];
    }
    const double alpha = length * length / curvature;
    for (std::size_t i = 0; i < image.size(); ++i) {
      dual[i] += alpha * direction[i];
      residual[i] -= alpha * image[i];
    }
    const double next = norm(residual);
    for (std::size_t i = 0; i < image.size(); ++i) {
      direction[i] = residual[i] + next * next / (length * length) * direction[i];
    }
    length = next;
    ++result.cg_iterations;
  }
  jacobian.measure(magnitudes);
  magnitudes.dual_norm = norm(dual);
  magnitudes.rhs_error += length + settings.cg_tolerance * first;
  magnitudes.n_summed = static_cast<std::int64_t>(p.kept) * p.dim;
  magnitudes.n_rows = static_cast<std::int64_t>(p.rows) * p.dim;
  magnitudes.steps = result.cg_iterations + 1;
  result.keys_error = ridge_bound(magnitudes);
  result.keys =
      clipped_sum(p.k_kept, jacobian.transposed(dual), settings.key_clip, result.keys_error);
}

}  // namespace

RidgeRefineReference ridge_refine_reference(const RidgeRefineParams& params, int problem) {
  const int dim = params.head_dim;
  const int kept = params.n_kept[problem];
  const std::int64_t at = static_cast<std::int64_t>(problem) * params.kept_capacity;
  const std::int64_t full_at = static_cast<std::int64_t>(problem) * params.n_tokens * dim;
  const std::int64_t n_full = static_cast<std::int64_t>(params.n_tokens) * dim;
  const std::int64_t n_small = static_cast<std::int64_t>(kept) * dim;
  Problem p{params, params.n_rows, dim, kept, {}, {}, {}, {}, {}};
  p.queries = widened(params.queries + static_cast<std::int64_t>(problem) * p.rows * dim,
                      static_cast<std::int64_t>(p.rows) * dim);
  p.k_kept = widened(params.k_kept + at * dim, n_small);
  p.v_kept = widened(params.v_kept + at * dim, n_small);
  for (int token = 0; token < kept; ++token) {
    p.movable.push_back(params.fixed == nullptr || params.fixed[at + token] == 0);
  }
  for (int row = 0; row < p.rows; ++row) {
    p.weight.push_back(params.row_weights[row]);
  }
  const Matrix v_stepped = widened(params.v_stepped + at * dim, n_small);
  const Matrix k_stepped = widened(params.k_stepped + at * dim, n_small);

  const Attention full = attend(p,
                                widened(params.k_full + full_at, n_full),
                                widened(params.v_full + full_at, n_full),
                                params.n_tokens);
  const Attention before = attend(p, p.k_kept, p.v_kept, kept);
  const Attention stepped = attend(p, p.k_kept, v_stepped, kept);
  const Attention both = attend(p, k_stepped, v_stepped, kept);

  RidgeRefineReference result;
  result.target = full.out;
  step_values(p, full, before, result);
  step_keys(p, full, stepped, v_stepped, result);
  const Loss losses[3] = {
      loss_of(p, full, before), loss_of(p, full, stepped), loss_of(p, full, both)};
  result.loss_kept = losses[0].value, result.loss_kept_error = losses[0].error;
  result.loss_values = losses[1].value, result.loss_values_error = losses[1].error;
  result.loss_both = losses[2].value, result.loss_both_error = losses[2].error;
  return result;
}

}  // namespace kvfathom::kernels
