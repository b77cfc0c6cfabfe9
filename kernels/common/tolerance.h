// How far a correct kernel may be from the double-precision reference: derived from the number
// formats, in this one place.
//
// References work in double on the inputs as stored (already rounded), so only the kernel's own
// roundings count: of its accumulations, of operands it converts, and of what it writes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

/// The roundings a kernel makes, as unit roundoffs.
struct Roundings {
  double accumulate = kUnitRoundoffF32;  ///< every product and sum
  double output = kUnitRoundoffF32;      ///< what is written
  double operands = 0.0;  ///< inputs rounded again before multiplying (dequantised to f16, say)
  double probabilities = 0.0;  ///< softmax weights rounded before they meet V
};

/// Bound on |kernel - reference| for a sum of n products: `magnitude` is the sum of their absolute
/// values. Errors of n roundings of random sign grow with sqrt(n) (Higham and Mary 2019); the
/// constant 2 covers fused and tree orders, and the quick approximations of exp2 and rsqrt.
[[nodiscard]] inline double dot_bound(double reference,
                                      double magnitude,
                                      std::int64_t n,
                                      const Roundings& u = {}) {
  const double sum = 2.0 * u.accumulate * std::sqrt(static_cast<double>(n));
  return u.output * std::fabs(reference) + (sum + u.operands) * magnitude;
}

/// What the reference of an attention returns beside each output value.
struct AttentionMagnitudes {
  double weighted_v = 0.0;  ///< sum_t p_t |v_t|
  double score = 0.0;       ///< max_t scale * sum_i |q_i k_ti|
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
  return u.output * std::fabs(reference) + (sums + converted + u.probabilities) * m.weighted_v;
}

}  // namespace kvfathom::kernels
