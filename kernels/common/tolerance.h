// How far a correct kernel may be from the double-precision reference: derived from the number
// formats, in this one place.
//
// References work in double on the inputs as stored (already rounded), so only the kernel's own
// roundings count: of its accumulations, of operands it converts, and of what it writes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/kv_format.h"
#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

/// The roundings a kernel makes, as unit roundoffs.
struct Roundings {
  double accumulate = kUnitRoundoffF32;  ///< every product and sum
  double output = kUnitRoundoffF32;      ///< what is written
  double output_step = 0.0;  ///< absolute: half the smallest step of the output format, see below
  double operands = 0.0;     ///< inputs rounded again before multiplying (dequantised to f16, say)
  double probabilities = 0.0;  ///< softmax weights rounded before they meet V
  /// Softmax weights this far below the largest may vanish: the smallest normal binary32. Where
  /// they are rounded to binary16, kSmallestWeightF16.
  double smallest_weight = 0x1p-126;
};
/// Half the spacing of binary16's subnormal numbers.
inline constexpr double kSmallestWeightF16 = 0x1p-25;

/// Half the step of f16 below 2^-14, where it loses relative precision: results that small are off
/// by this much however right the sum. (bf16 reaches as low as f32.)
inline constexpr double kHalfSmallestStepF16 = 0x1p-25;

/// Bound on |kernel - reference| for a sum of n products: `magnitude` is the sum of their absolute
/// values. Errors of n roundings of random sign grow with sqrt(n) (Higham and Mary 2019); the
/// constant 2 covers fused and tree orders, and the quick approximations of exp2 and rsqrt.
[[nodiscard]] inline double dot_bound(double reference,
                                      double magnitude,
                                      std::int64_t n,
                                      const Roundings& u = {}) {
  const double sum = 2.0 * u.accumulate * std::sqrt(static_cast<double>(n));
  return u.output * std::fabs(reference) + u.output_step + (sum + u.operands) * magnitude;
}

/// What the reference of an attention returns beside each output value.
struct AttentionMagnitudes {
  double weighted_v = 0.0;  ///< sum_t p_t |v_t|
  double score = 0.0;       ///< max_t scale * sum_i |q_i k_ti|
  double total_v = 0.0;     ///< sum_t |v_t|; matters where V is zero wherever the weight is
};

/// Bound on |kernel - reference| for one output of softmax(q k^T scale) v: a score that is off by
/// e changes its weight by the factor exp(e), so errors of the scores count relative to V's
/// magnitude, and grow with the scores themselves.
[[nodiscard]] inline double attention_bound(double reference,
                                            const AttentionMagnitudes& m,
                                            std::int64_t length,
                                            int head_dim,
                                            const Roundings& u = {}) {
  const double sums = 2.0 * u.accumulate *
                      (std::sqrt(static_cast<double>(length)) +
                       std::sqrt(static_cast<double>(head_dim)) * (1.0 + m.score));
  const double converted = u.operands * (1.0 + 2.0 * m.score);
  return u.output * std::fabs(reference) + (sums + converted + u.probabilities) * m.weighted_v +
         u.smallest_weight * m.total_v;
}

/// Bound on a sum of `n_terms` softmax weights of sequences of `length` tokens (all >= 0): each is
/// off as an attention over V = 1 is, and their sum rounds. What underflows may be lost.
[[nodiscard]] inline double weight_sum_bound(
    double sum, double largest_abs_score, std::int64_t n_terms, std::int64_t length, int head_dim) {
  const AttentionMagnitudes magnitudes{.weighted_v = sum, .score = largest_abs_score};
  return attention_bound(sum, magnitudes, length, head_dim) + dot_bound(sum, sum, n_terms) +
         static_cast<double>(n_terms) * 0x1p-126;
}

/// Bound on the error of a rotated element x cos - y sin, for |x| + |y|: the angle is rounded to a
/// float of at most half a turn (pi roundoffs of a radian), sine and cosine (2), the products and
/// their sum (2).
[[nodiscard]] inline double rope_bound(double magnitude) {
  return 8.0 * kUnitRoundoffF32 * magnitude;
}

/// What the step of a stored value depends on.
struct StoredValue {
  double value = 0.0;
  double largest_in_block = 0.0;  ///< largest magnitude among the 32
  double largest_in_row = 0.0;
  double head_scale = 1.0;
};
/// Half the distance between neighbouring values of the format around `stored.value`: how far
/// encoding moves it. q4_0's step is an eighth of the extreme, and the side away from the extreme
/// ends one step early, so there it is a whole one. Scales are rounded to the format's own.
[[nodiscard]] inline double storage_bound(KvFormat format, const StoredValue& stored) {
  const double largest = stored.largest_in_block;
  switch (format) {
    case KvFormat::f16:
      return std::fabs(stored.value) * kUnitRoundoffF16 + 0x1p-25;
    case KvFormat::bf16:
      return std::fabs(stored.value) * kUnitRoundoffBf16;
    case KvFormat::fp8_e4m3:
      return std::fabs(stored.value) * kUnitRoundoffFp8E4m3 + stored.head_scale * 0x1p-10;
    case KvFormat::q8_0:
      return largest * (1.0 / 254.0 + kUnitRoundoffF16 + 0x1p-20) + 127.0 * 0x1p-25;
    case KvFormat::q4_0:
      return largest * (1.0 / 8.0 + kUnitRoundoffF16 + 0x1p-20) + 8.0 * 0x1p-25;
    case KvFormat::int8_token:
      return stored.largest_in_row * (1.0 / 254.0 + 0x1p-20);
  }
  return 0.0;
}

/// A ridge solve min |B x - r|^2 + lambda |x|^2 by its dual (B B^T + lambda I) u = r, x = B^T u.
/// Norms are Frobenius norms, which are not less than the spectral ones.
struct RidgeMagnitudes {
  double lambda = 0.0;
  double operator_norm = 0.0;   ///< |B|
  double operator_error = 0.0;  ///< norm of what B itself is off by
  double dual_norm = 0.0;       ///< |u|
  double rhs_error = 0.0;       ///< norm of what r is off by, and of the residual left in u
  std::int64_t n_summed = 0;    ///< terms of one element of B B^T u
  std::int64_t n_rows = 0;      ///< equations
  int steps = 1;                ///< applications of B B^T that add to the solution
};

/// Bound on |x - exact|. The matrix is off by 2 |B| |dB| and by its sums' roundings; its smallest
/// eigenvalue is at least lambda, so u is off by at most (|dM| |u| + |dr|) / lambda (Higham,
/// Accuracy and Stability, 7.1; for iterations the same per step: Greenbaum 1997). x = B^T u then
/// adds the operator's own error.
[[nodiscard]] inline double ridge_bound(const RidgeMagnitudes& m, const Roundings& u = {}) {
  const double sums =
      2.0 * u.accumulate *
      (std::sqrt(static_cast<double>(m.n_summed)) + std::sqrt(static_cast<double>(m.n_rows)));
  const double matrix = m.operator_norm * m.operator_norm + m.lambda;
  const double matrix_error = 2.0 * m.operator_norm * m.operator_error + sums * matrix;
  const double dual_error = (m.steps * matrix_error * m.dual_norm + m.rhs_error) / m.lambda;
  return m.operator_norm * dual_error + (m.operator_error + sums * m.operator_norm) * m.dual_norm;
}

}  // namespace kvfathom::kernels
