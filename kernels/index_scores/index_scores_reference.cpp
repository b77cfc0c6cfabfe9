#include <cmath>
#include <string>

#include "kernels/common/error.h"
#include "kernels/index_scores/index_scores.h"

namespace kvfathom::kernels {

void check_index_scores(const IndexScoresParams& params) {
  if (params.head_dim <= 0 || params.head_dim % 32 != 0 || params.head_dim > 256) {
    throw UnsupportedShape("index_scores: head_dim = " + std::to_string(params.head_dim) +
                           "; built for multiples of 32 up to 256");
  }
  if (params.n_heads <= 0 || params.keys.n_kv_heads != 1) {
    throw UnsupportedShape("index_scores: " + std::to_string(params.n_heads) + " heads over " +
                           std::to_string(params.keys.n_kv_heads) + " keys a token; 1 is built");
  }
}

void index_scores_reference(const IndexScoresParams& params, const IndexScoresReference& result) {
  for (int sequence = 0; sequence < params.keys.n_sequences; ++sequence) {
    for (int token = 0; token < length_of(params.keys, sequence, 0); ++token) {
      const KvSlot at = slot_of(params.keys, sequence, token);
      const auto* key = reinterpret_cast<const Fp8E4m3*>(row_data(params.keys.k, at, 0));
      const double scale = *reinterpret_cast<const float*>(row_scales(params.keys.k, at, 0));
      double score = 0.0;
      double magnitude = 0.0;
      for (int head = 0; head < params.n_heads; ++head) {
        const std::int64_t row = std::int64_t{sequence} * params.n_heads + head;
        double dot = 0.0;
        double dot_magnitude = 0.0;
        for (int i = 0; i < params.head_dim; ++i) {
          const double product =
              static_cast<double>(to_f32(params.q[row * params.head_dim + i])) * to_f32(key[i]);
          dot += product;
          dot_magnitude += std::fabs(product);
        }
        score += params.weights[row] * std::fmax(dot, 0.0) * scale;
        magnitude += std::fabs(params.weights[row]) * dot_magnitude * scale;
      }
      result.scores[std::int64_t{sequence} * params.max_tokens + token] = score;
      result.magnitudes[std::int64_t{sequence} * params.max_tokens + token] = magnitude;
    }
  }
}

}  // namespace kvfathom::kernels
