#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/decode_attention/decode_attention.h"

namespace kvfathom::kernels {
namespace {

/// Scale of all rows of one KV head; 1 where rows carry their own scales or none.
float head_scale(const KvCacheView& cache, const KvPlane& plane, int kv_head) {
  return cache.format == KvFormat::fp8_e4m3 ? reinterpret_cast<const float*>(plane.scales)[kv_head]
                                            : 1.0F;
}

std::vector<double> cached_row(const DecodeAttentionParams& params,
                               const KvPlane& plane,
                               int sequence,
                               int kv_head,
                               int token) {
  const KvSlot at = slot_of(params.cache, sequence, token);
  return decode_row(params.cache.format,
                    params.head_dim,
                    row_data(plane, at, kv_head),
                    row_scales(plane, at, kv_head),
                    head_scale(params.cache, plane, kv_head));
}

std::vector<double> query_row(const DecodeAttentionParams& params, int sequence, int head) {
  std::vector<double> q(params.head_dim);
  const std::int64_t first =
      (static_cast<std::int64_t>(sequence) * params.n_heads + head) * params.head_dim;
  for (int i = 0; i < params.head_dim; ++i) {
    const std::uint16_t bits = params.q[first + i];
    q[i] = params.cache.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
  }
  return q;
}

std::vector<int> attended_tokens(const DecodeAttentionParams& params, int length) {
  std::vector<int> tokens;
  for (int token = 0; token < length; ++token) {
    const bool in_window = params.window_tokens == 0 || token >= length - params.window_tokens;
    if (in_window || token < params.sink_tokens) {
      tokens.push_back(token);
    }
  }
  return tokens;
}

/// softmax of `scores`, which `sink_logit` joins in the denominator; -infinity: no sink.
std::vector<double> softmax(const std::vector<double>& scores, double sink_logit) {
  const double largest = std::max(sink_logit, *std::max_element(scores.begin(), scores.end()));
  std::vector<double> weights;
  double sum = std::exp(sink_logit - largest);
  for (const double score : scores) {
    weights.push_back(std::exp(score - largest));
    sum += weights.back();
  }
  for (double& weight : weights) {
    weight /= sum;
  }
  return weights;
}

void one_head(const DecodeAttentionParams& params,
              int sequence,
              int head,
              const DecodeAttentionReference& result) {
  const int kv_head = head / (params.n_heads / params.cache.n_kv_heads);
  const std::int64_t row = static_cast<std::int64_t>(sequence) * params.n_heads + head;
  const std::span<double> out(result.out + row * params.head_dim, params.head_dim);
  const std::span<double> abs_out(result.weighted_abs_v + row * params.head_dim, params.head_dim);
  std::fill(out.begin(), out.end(), 0.0);
  std::fill(abs_out.begin(), abs_out.end(), 0.0);
  result.largest_abs_score[row] = 0.0;
  std::vector<double> not_asked_for(params.head_dim);
  const std::span<double> total_abs_v =
      result.total_abs_v != nullptr
          ? std::span<double>(result.total_abs_v + row * params.head_dim, params.head_dim)
          : std::span<double>(not_asked_for);
  std::fill(total_abs_v.begin(), total_abs_v.end(), 0.0);
  const std::vector<int> tokens =
      attended_tokens(params, length_of(params.cache, sequence, kv_head));
  if (tokens.empty()) {
    return;
  }

  const std::vector<double> q = query_row(params, sequence, head);
  std::vector<double> scores;
  for (const int token : tokens) {
    const std::vector<double> k = cached_row(params, params.cache.k, sequence, kv_head, token);
    double score = 0.0;
    double abs_score = 0.0;
    for (int i = 0; i < params.head_dim; ++i) {
      score += q[i] * k[i];
      abs_score += std::fabs(q[i] * k[i]);
    }
    scores.push_back(score * params.softmax_scale);
    result.largest_abs_score[row] =
        std::max(result.largest_abs_score[row], abs_score * std::fabs(params.softmax_scale));
  }
  const double sink_logit = params.sink_logits != nullptr
                                ? params.sink_logits[head]
                                : -std::numeric_limits<double>::infinity();
  const std::vector<double> weights = softmax(scores, sink_logit);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const std::vector<double> v = cached_row(params, params.cache.v, sequence, kv_head, tokens[t]);
    for (int i = 0; i < params.head_dim; ++i) {
      out[i] += weights[t] * v[i];
      abs_out[i] += weights[t] * std::fabs(v[i]);
      total_abs_v[i] += std::fabs(v[i]);
    }
  }
}

}  // namespace

void decode_attention_reference(const DecodeAttentionParams& params,
                                const DecodeAttentionReference& result) {
  if (params.cache.n_kv_heads <= 0 || params.n_heads % params.cache.n_kv_heads != 0) {
    throw UnsupportedShape("decode_attention: query heads are not a multiple of KV heads");
  }
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    for (int head = 0; head < params.n_heads; ++head) {
      one_head(params, sequence, head, result);
    }
  }
}

}  // namespace kvfathom::kernels
