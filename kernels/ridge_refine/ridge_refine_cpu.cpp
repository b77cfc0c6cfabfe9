// Ridge refinement on the CPU: OpenBLAS products in float, Highway for the softmax.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <cblas.h>

#include "kernels/common/parallel.h"
#include "kernels/ridge_refine/ridge_refine.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ridge_refine/ridge_refine_cpu.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target:
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

/// Softmax of one row in place. Rows are padded: `n` is rounded up to whole vectors by masks.
void softmax_row(float* row, std::size_t n) {
  const hn::ScalableTag<float> tag;
  const std::size_t lanes = hn::Lanes(tag);
  const float largest = *std::max_element(row, row + n);
  const auto offset = hn::Set(tag, largest);
  auto sums = hn::Zero(tag);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto weights = hn::Exp(tag, hn::Sub(hn::LoadU(tag, row + i), offset));
    sums = hn::Add(sums, weights);
    hn::StoreU(weights, tag, row + i);
  }
  float sum = hn::GetLane(hn::SumOfLanes(tag, sums));
  for (; i < n; ++i) {
    row[i] = std::exp(row[i] - largest);
    sum += row[i];
  }
  for (std::size_t at = 0; at < n; ++at) {
    row[at] /= sum;
  }
}

}  // namespace
}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {
namespace {

HWY_EXPORT(softmax_row);

using Matrix = std::vector<float>;  // row-major

Matrix widened(const Bf16* values, std::int64_t n) {
  Matrix wide(static_cast<std::size_t>(n));
  std::transform(values, values + n, wide.begin(), [](Bf16 value) { return to_f32(value); });
  return wide;
}

/// c [m, n] = scale * a b, each of a and b transposed where asked.
void multiply(Matrix& c,
              const Matrix& a,
              bool a_across,
              const Matrix& b,
              bool b_across,
              int m,
              int n,
              int k,
              float scale = 1.0F) {
  c.resize(static_cast<std::size_t>(m) * n);
  if (m == 0 || n == 0) {
    return;
  }
  if (k == 0) {
    std::fill(c.begin(), c.end(), 0.0F);
    return;
  }
  cblas_sgemm(CblasRowMajor,
              a_across ? CblasTrans : CblasNoTrans,
              b_across ? CblasTrans : CblasNoTrans,
              m,
              n,
              k,
              scale,
              a.data(),
              a_across ? m : k,
              b.data(),
              b_across ? k : n,
              0.0F,
              c.data(),
              n);
}

double squared_norm(const Matrix& m) {
  double sum = 0.0;
  for (const float value : m) {
    sum += static_cast<double>(value) * value;
  }
  return sum;
}
double dot(const Matrix& a, const Matrix& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a[i]) * b[i];
  }
  return sum;
}

/// Cholesky factor of the n x n matrix in its lower triangle; 0, or 1 + the pivot that failed.
int factor(Matrix& m, int n) {
  for (int column = 0; column < n; ++column) {
    float* at = m.data() + static_cast<std::size_t>(column) * n;
    for (int row = column; row < n; ++row) {
      float* of = m.data() + static_cast<std::size_t>(row) * n;
      of[column] -= cblas_sdot(column, of, 1, at, 1);
    }
    if (!(at[column] > 0.0F)) {
      return column + 1;
    }
    const float root = std::sqrt(at[column]);
    for (int row = column; row < n; ++row) {
      m[static_cast<std::size_t>(row) * n + column] /= root;
    }
  }
  return 0;
}

class Problem {
 public:
  Problem(const RidgeRefineParams& params, int problem)
      : p_(params),
        rows_(params.n_rows),
        dim_(params.head_dim),
        kept_(params.n_kept[problem]),
        at_(static_cast<std::int64_t>(problem) * params.kept_capacity * params.head_dim),
        outcome_(params.outcome[problem]) {
    const std::int64_t n_small = static_cast<std::int64_t>(kept_) * dim_;
    const std::int64_t n_rows = static_cast<std::int64_t>(rows_) * dim_;
    queries_ = widened(p_.queries + problem * n_rows, n_rows);
    keys_ = widened(p_.k_kept + at_, n_small);
    values_ = widened(p_.v_kept + at_, n_small);
    for (int token = 0; token < kept_; ++token) {
      const std::int64_t flag = static_cast<std::int64_t>(problem) * p_.kept_capacity + token;
      movable_.push_back(p_.fixed == nullptr || p_.fixed[flag] == 0 ? 1.0F : 0.0F);
    }
    const std::int64_t n_full = static_cast<std::int64_t>(p_.n_tokens) * dim_;
    Matrix weights;
    attend(weights,
           target_,
           widened(p_.k_full + problem * n_full, n_full),
           widened(p_.v_full + problem * n_full, n_full),
           p_.n_tokens);
  }

  void refine() {
    outcome_ = RidgeRefineOutcome{};
    attend(weights_, out_, keys_, values_, kept_);
    outcome_.loss_kept = residual();
    step_values();
    const Matrix stepped_values = widened(p_.v_stepped + at_, kept_ * dim_);
    multiply(out_, weights_, false, stepped_values, false, rows_, dim_, kept_);
    outcome_.loss_values = residual();
    step_keys(stepped_values);
    attend(weights_, out_, widened(p_.k_stepped + at_, kept_ * dim_), stepped_values, kept_);
    outcome_.loss_both = residual();
    choose();
  }

 private:
  void attend(Matrix& weights, Matrix& out, const Matrix& keys, const Matrix& values, int n) const {
    multiply(weights, queries_, false, keys, true, rows_, n, dim_, p_.softmax_scale);
    for (int row = 0; row < rows_ && n > 0; ++row) {
      HWY_DYNAMIC_DISPATCH(softmax_row)
      (weights.data() + static_cast<std::size_t>(row) * n, static_cast<std::size_t>(n));
    }
    multiply(out, weights, false, values, false, rows_, dim_, n);
  }

  /// residual_ = w^1/2 (Y - out); returns its square, the loss.
  float residual() {
    residual_.resize(target_.size());
    for (std::size_t at = 0; at < target_.size(); ++at) {
      residual_[at] = std::sqrt(p_.row_weights[at / dim_]) * (target_[at] - out_[at]);
    }
    return static_cast<float>(squared_norm(residual_));
  }

  /// weights_ times a factor of the row, zero for guards.
  [[nodiscard]] Matrix movable_weights(float scale) const {
    Matrix scaled = weights_;
    for (int row = 0; row < rows_; ++row) {
      const float of_row = std::sqrt(p_.row_weights[row]) * scale;
      for (int token = 0; token < kept_; ++token) {
        scaled[static_cast<std::size_t>(row) * kept_ + token] *= of_row * movable_[token];
      }
    }
    return scaled;
  }

  void write_step(const Matrix& base, const Matrix& step, float clip, bool solved, Bf16* to) const {
    const double length = std::sqrt(squared_norm(step));
    const double limit = clip * std::sqrt(squared_norm(base));
    const auto shrink = static_cast<float>(length > limit ? limit / length : 1.0);
    for (std::size_t at = 0; at < base.size(); ++at) {
      to[at] = to_bf16(solved && length < INFINITY ? base[at] + shrink * step[at] : base[at]);
    }
  }

  void step_values() {
    const Matrix b = movable_weights(1.0F);
    Matrix gram;
    multiply(gram, b, false, b, true, rows_, rows_, kept_);
    for (int row = 0; row < rows_; ++row) {
      gram[static_cast<std::size_t>(row) * rows_ + row] += p_.settings.lambda_v;
    }
    outcome_.failed_pivot = factor(gram, rows_);
    Matrix dual = residual_;
    for (const CBLAS_TRANSPOSE side : {CblasNoTrans, CblasTrans}) {
      cblas_strsm(CblasRowMajor,
                  CblasLeft,
                  CblasLower,
                  side,
                  CblasNonUnit,
                  rows_,
                  dim_,
                  1.0F,
                  gram.data(),
                  rows_,
                  dual.data(),
                  dim_);
    }
    Matrix step;
    multiply(step, b, true, dual, false, kept_, dim_, rows_);
    write_step(
        values_, step, p_.settings.value_clip, outcome_.failed_pivot == 0, p_.v_stepped + at_);
  }

  /// J^T vector: [n_kept, head_dim].
  void back_to_keys(Matrix& step,
                    const Matrix& scaled,
                    const Matrix& vector,
                    const Matrix& values) {
    multiply(products_, vector, false, values, true, rows_, kept_, dim_);
    for (int row = 0; row < rows_; ++row) {
      const std::size_t at = static_cast<std::size_t>(row) * dim_;
      const float offset = cblas_sdot(dim_, vector.data() + at, 1, out_.data() + at, 1);
      for (int token = 0; token < kept_; ++token) {
        float& product = products_[static_cast<std::size_t>(row) * kept_ + token];
        product = scaled[static_cast<std::size_t>(row) * kept_ + token] * (product - offset);
      }
    }
    multiply(step, products_, true, queries_, false, kept_, dim_, rows_);
  }
  /// J step + lambda vector: [n_rows, head_dim].
  void forth_from_keys(Matrix& image,
                       const Matrix& scaled,
                       const Matrix& step,
                       const Matrix& vector,
                       const Matrix& values) {
    multiply(products_, queries_, false, step, true, rows_, kept_, dim_);
    Matrix row_sums(static_cast<std::size_t>(rows_), 0.0F);
    for (int row = 0; row < rows_; ++row) {
      for (int token = 0; token < kept_; ++token) {
        const std::size_t at = static_cast<std::size_t>(row) * kept_ + token;
        products_[at] *= scaled[at];
        row_sums[row] += products_[at];
      }
    }
    multiply(image, products_, false, values, false, rows_, dim_, kept_);
    for (std::size_t at = 0; at < image.size(); ++at) {
      image[at] += p_.settings.lambda_k * vector[at] - row_sums[at / dim_] * out_[at];
    }
  }

  void step_keys(const Matrix& values) {
    const Matrix scaled = movable_weights(p_.softmax_scale);
    Matrix direction = residual_;
    Matrix dual(residual_.size(), 0.0F);
    Matrix step;
    Matrix image;
    const double first = squared_norm(residual_);
    const double tolerance = std::pow(static_cast<double>(p_.settings.cg_tolerance), 2);
    double squared = first;
    while (outcome_.cg_iterations < p_.settings.cg_max_iterations && squared > tolerance * first) {
      back_to_keys(step, scaled, direction, values);
      forth_from_keys(image, scaled, step, direction, values);
      const auto alpha = static_cast<float>(squared / dot(direction, image));
      for (std::size_t at = 0; at < image.size(); ++at) {
        dual[at] += alpha * direction[at];
        residual_[at] -= alpha * image[at];
      }
      const double next = squared_norm(residual_);
      const auto beta = static_cast<float>(next / squared);
      for (std::size_t at = 0; at < image.size(); ++at) {
        direction[at] = residual_[at] + beta * direction[at];
      }
      squared = next;
      ++outcome_.cg_iterations;
    }
    back_to_keys(step, scaled, dual, values);
    write_step(keys_, step, p_.settings.key_clip, true, p_.k_stepped + at_);
  }

  void choose() const {
    float best = outcome_.loss_kept;
    outcome_.choice = RidgeRefineOutcome::kept;
    if (outcome_.loss_values < best) {
      best = outcome_.loss_values;
      outcome_.choice = RidgeRefineOutcome::values;
    }
    if (outcome_.loss_both < best) {
      outcome_.choice = RidgeRefineOutcome::values_and_keys;
    }
    const bool both = outcome_.choice == RidgeRefineOutcome::values_and_keys;
    const Bf16* keys = both ? p_.k_stepped : p_.k_kept;
    const Bf16* values = outcome_.choice == RidgeRefineOutcome::kept ? p_.v_kept : p_.v_stepped;
    std::copy_n(keys + at_, kept_ * dim_, p_.k_out + at_);
    std::copy_n(values + at_, kept_ * dim_, p_.v_out + at_);
  }

  const RidgeRefineParams& p_;
  int rows_, dim_, kept_;
  std::int64_t at_;
  RidgeRefineOutcome& outcome_;
  Matrix queries_, keys_, values_, movable_, target_;
  Matrix weights_, out_, residual_, products_;
};

}  // namespace

void ridge_refine_cpu(const RidgeRefineParams& params, int n_threads) {
  ridge_refine_check(params);
  const int threads = n_threads_or_all(n_threads);
  // Problems side by side where there are enough, else all threads inside each product.
  const bool side_by_side = params.n_problems >= threads;
  openblas_set_num_threads(side_by_side ? 1 : threads);
  parallel_shares(side_by_side ? threads : 1, params.n_problems, [&](int, auto first, auto last) {
    for (auto problem = first; problem < last; ++problem) {
      Problem(params, static_cast<int>(problem)).refine();
    }
  });
}

}  // namespace kvfathom::kernels
#endif  // HWY_ONCE
