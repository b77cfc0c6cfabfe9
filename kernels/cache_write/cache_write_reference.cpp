#include <cmath>
#include <numbers>

#include "kernels/cache_write/cache_write.h"

namespace kvfathom::kernels {

void cache_write_reference(const CacheWriteParams& params, const CacheWriteReference& result) {
  const Rope& rope = params.rope;
  for (int token = 0; token < params.n_tokens; ++token) {
    for (int head = 0; head < params.cache.n_kv_heads; ++head) {
      const std::int64_t row =
          (std::int64_t{token} * params.cache.n_kv_heads + head) * params.head_dim;
      double* out = result.rotated_k + row;
      double* magnitude = result.rotated_k_magnitude + row;
      for (int i = 0; i < params.head_dim; ++i) {
        out[i] = element_at(params.element, params.k, row + i);
        magnitude[i] = std::fabs(out[i]);
      }
      for (int i = 0; i < rope.rotary_dim / 2; ++i) {
        const int first = rope.style == RopeStyle::halves ? i : 2 * i;
        const int second = rope.style == RopeStyle::halves ? i + rope.rotary_dim / 2 : 2 * i + 1;
        const long double turns = static_cast<long double>(rope.turns_per_position[i]) * 0x1p-64L *
                                  static_cast<long double>(params.positions[token]);
        const double angle = static_cast<double>(2.0L * std::numbers::pi_v<long double> *
                                                 (turns - std::floor(turns)));
        const double x = out[first];
        const double y = out[second];
        out[first] = x * std::cos(angle) - y * std::sin(angle);
        out[second] = x * std::sin(angle) + y * std::cos(angle);
        magnitude[first] = magnitude[second] = std::fabs(x) + std::fabs(y);
      }
    }
  }
}

}  // namespace kvfathom::kernels
