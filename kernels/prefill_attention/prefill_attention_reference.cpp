#include <cmath>
#include <vector>

#include "kernels/prefill_attention/prefill_attention.h"

namespace kvfathom::kernels {
namespace {

double element(const PrefillAttentionParams& params, std::uint16_t bits) {
  return params.cache.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
}

/// One query of one head, which sees tokens [first, end).
void one_query(const PrefillAttentionParams& params,
               int sequence,
               std::int64_t row,
               int head,
               int first,
               int end,
               const PrefillAttentionReference& result) {
  const int dim = params.head_dim;
  const int kv_head = head / (params.n_heads / params.cache.n_kv_heads);
  const std::int64_t query = row * params.n_heads + head;
  const std::uint16_t* q = params.q + query * dim;
  double* out = result.out + query * dim;
  double* weighted_abs_v = result.weighted_abs_v + query * dim;

  std::vector<double> scores;
  double largest = -INFINITY;
  double largest_abs = 0.0;
  for (int token = first; token < end; ++token) {
    const KvSlot slot = slot_of(params.cache, sequence, token);
    const std::vector<double> k =
        decode_row(params.cache.format, dim, row_data(params.cache.k, slot, kv_head), nullptr);
    double score = 0.0;
    double magnitude = 0.0;
    for (int i = 0; i < dim; ++i) {
      const double product = element(params, q[i]) * k[i];
      score += product;
      magnitude += std::fabs(product);
    }
    scores.push_back(score * params.softmax_scale);
    largest = std::fmax(largest, scores.back());
    largest_abs = std::fmax(largest_abs, magnitude * std::fabs(params.softmax_scale));
  }
  double denominator = 0.0;
  for (const double score : scores) {
    denominator += std::exp(score - largest);
  }
  for (int i = 0; i < dim; ++i) {
    out[i] = 0.0;
    weighted_abs_v[i] = 0.0;
  }
  for (int token = first; token < end; ++token) {
    const double weight = std::exp(scores[token - first] - largest) / denominator;
    const KvSlot slot = slot_of(params.cache, sequence, token);
    const std::vector<double> v =
        decode_row(params.cache.format, dim, row_data(params.cache.v, slot, kv_head), nullptr);
    for (int i = 0; i < dim; ++i) {
      out[i] += weight * v[i];
      weighted_abs_v[i] += weight * std::fabs(v[i]);
    }
  }
  result.largest_abs_score[query] = largest_abs;
}

}  // namespace

void prefill_attention_reference(const PrefillAttentionParams& params,
                                 const PrefillAttentionReference& result) {
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    const int first_row = params.query_offsets[sequence];
    const int n_queries = params.query_offsets[sequence + 1] - first_row;
    const int length = length_of(params.cache, sequence, 0);
    for (int i = 0; i < n_queries; ++i) {
      const int position = length - n_queries + i;
      int first = 0;
      if (params.window_tokens > 0 && position - params.window_tokens + 1 > 0) {
        first = position - params.window_tokens + 1;
      }
      for (int head = 0; head < params.n_heads; ++head) {
        one_query(params, sequence, first_row + i, head, first, position + 1, result);
      }
    }
  }
}

}  // namespace kvfathom::kernels
